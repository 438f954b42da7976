"""Builds the parts of the gateway from its settings and connects them: `build(plan)`. Needs no HTTP."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app import housekeeping, process
from app.contract.book import Terms
from app.contract.ledger import new_id
from app.contract.models import Catalogue
from app.db import migrate, open_database
from app.environment import replaced
from app.pictures.process_folder import ProcessFolder
from app.pictures.work_folder import WorkFolder
from app.plan import Plan
from app.ports import Storage
from app.providers.transport import Transport
from app.providers.vendors import GEN_VENDORS, IMAGE_VENDORS, Outside, make_rewriter
from app.providers.vertex.credentials import Bearer, Credentials
from app.services.admission import Admission
from app.services.auth import Auth, LoginLimits
from app.services.budgets import Budgets
from app.services.chain import Chain
from app.services.demo import DEMO_ID, Demo, demo_user
from app.services.finding import Finder
from app.services.gallery import Gallery
from app.services.gen import Gen
from app.services.image import Images
from app.services.keys import Keys
from app.services.limits import RateLimit
from app.services.passwords import Passwords
from app.services.paying import Paying
from app.services.readiness import Readiness
from app.services.receipts import Receipts
from app.services.room import Room
from app.services.tokens import IdentityProvider, Tokens
from app.services.unattended import Unattended
from app.services.users import Users
from app.settings import EMULATED_ADDRESSES, MEBIBYTE, Settings
from app.storage.gcs import Gcs
from app.storage.ledger import Ledger, open_store
from app.storage.private import PrivateStore
from app.storage.recovery import PREFIX, Recovery
from app.storage.spool import DiskSpool

if TYPE_CHECKING:
    from app.emulator.server import Emulator

_BODIES, _BODIES_OF_ONE_USER = 1536 * MEBIBYTE, 768 * MEBIBYTE
"""The memory for all request bodies under way together, and for those of one user."""
_LATE_SECONDS = 60
"""Seconds after its longest time until a call counts as interrupted."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the running gateway. `demo` and `emulator` are None unless CLOUD=emulator."""

    settings: Settings
    catalogue: Catalogue
    work: WorkFolder
    auth: Auth
    rate_limit: RateLimit
    bodies: Room
    paying: Paying
    images: Images
    gen: Gen
    readiness: Readiness
    storage: Storage
    gallery: Gallery
    receipts: Receipts
    budgets: Budgets
    admission: Admission
    unattended: Unattended
    demo: Demo | None
    emulator: "Emulator | None"

    def stop(self) -> None:
        """Send no further calls: the process has been asked to end."""
        log.info("stopping: waiting for calls that were sent, and sending no more")
        self.admission.close()

    def stop_now(self) -> None:
        """Cancel all requests: the process has been asked again to end. Arrived pictures are on the spool."""
        log.warning("stopping at once: calls that were sent are given up")
        self.unattended.cancel_all()
        self.gallery.cancel_spooled_uploads()

    @property
    def open_login(self) -> dict[str, str] | None:
        """The demo user's login, or None if the documentation must not show it.

        With the example secret it can be shown, because everybody can make tokens anyway.
        """
        demo = self.demo
        if not (demo and demo.user and demo.password and self.settings.has_example_secret):
            return None
        return {"username": demo.user.username, "password": demo.password}


@asynccontextmanager
async def build(plan: Plan, *, clock: Callable[[], int] | None = None) -> AsyncIterator[Parts]:
    """Start the gateway's parts, and stop them in the reverse order at the end of the `with` block.

    `clock` returns the time in Unix milliseconds for budgets and the ledger. Without it they use the clock of
    the database or of this machine.
    """
    process.tune()
    for name, instead in replaced().items():
        log.warning("a setting has no effect any more: remove it", setting=name, instead=instead)
    async with AsyncExitStack() as stack:
        emulator, settings = await _emulated(plan, stack)
        catalogue = plan.catalogue
        work = await asyncio.to_thread(WorkFolder, settings.data_dir / "work", max_bytes=settings.work_bytes)
        stack.callback(work.close)
        _run(housekeeping.clean(work), stack)
        transport = Transport()
        stack.push_async_callback(transport.aclose)
        database = open_database(settings.database_url)
        stack.push_async_callback(database.dispose)
        auth = _auth(settings, database, stack)
        receipts = Receipts(database)
        _run(receipts.remove_old(settings.receipt_days), stack)
        rate_limit = RateLimit(settings.rate_limit, name="images", redis_url=settings.redis_url)
        stack.push_async_callback(rate_limit.aclose)
        token = Bearer(plan.google) if plan.google else None
        admission = Admission(
            settings.max_calls, settings.max_calls_per_user, min_seconds=settings.min_seconds
        )
        outside = Outside(settings, catalogue, transport, admission, token)
        image_providers = {id: vendor.make(outside) for id, vendor in IMAGE_VENDORS.items()}
        gen_providers = {id: vendor.make(outside) for id, vendor in GEN_VENDORS.items()}
        claude = make_rewriter(outside)
        stack.push_async_callback(claude.aclose)
        stores = await _stores(settings, _storage(settings, transport, plan.google, token), work, stack)
        unattended = Unattended(settings.request_timeout_seconds)
        stack.push_async_callback(unattended.aclose)
        ledger = await _ledger(settings, stores.finder, stack, clock)
        chain = Chain(catalogue, follow=settings.retired_models == "follow")
        identity_provider = {"jwks": auth.tokens} if settings.jwks_url else {}
        readiness = Readiness(
            required={"database": auth.users, "storage": stores.storage, "spool": stores.spool},
            vendors={IMAGE_VENDORS[id].name: provider for id, provider in image_providers.items()}
            | {GEN_VENDORS[id].name: provider for id, provider in gen_providers.items()},
            optional={"limits": rate_limit, "claude": claude, **identity_provider},
        )
        stack.push_async_callback(readiness.aclose)
        demo = None
        if settings.cloud == "emulator":
            demo = await demo_user(auth.users, auth.passwords, settings.data_dir)
        process.freeze()
        yield Parts(
            settings=settings,
            catalogue=catalogue,
            work=work,
            auth=auth,
            rate_limit=rate_limit,
            bodies=Room(_BODIES, _BODIES_OF_ONE_USER),
            paying=Paying(ledger, plan.prices, stores.finder, stores.private),
            images=Images(
                providers=image_providers,
                gallery=stores.gallery,
                chain=chain,
                catalogue=catalogue,
                allowed_prefixes=settings.allowed_prefixes,
            ),
            gen=Gen(
                providers=gen_providers,
                rewriter=claude,
                gallery=stores.gallery,
                chain=chain,
                rewrite_chain=Chain(catalogue),
                catalogue=catalogue,
                finder=stores.finder,
                rewrite_seconds=settings.rewrite_seconds,
            ),
            readiness=readiness,
            storage=stores.storage,
            gallery=stores.gallery,
            receipts=receipts,
            budgets=Budgets(database, settings.budget_limits, clock=clock),
            admission=admission,
            unattended=unattended,
            demo=demo,
            emulator=emulator,
        )


async def _emulated(plan: Plan, stack: AsyncExitStack) -> "tuple[Emulator | None, Settings]":
    """Returns the emulator, if this process runs one, and the settings with its address.

    With CLOUD=emulator the database's schema is brought up to date.
    """
    emulator, settings = None, plan.settings
    if settings.embeds_emulator:
        emulator = await _start_emulator(settings, plan.catalogue, stack)
        settings = _pointing_at(emulator, settings)
    if settings.cloud == "emulator":
        await asyncio.to_thread(migrate, settings.database_url)
    return emulator, settings


async def _start_emulator(settings: Settings, catalogue: Catalogue, stack: AsyncExitStack) -> "Emulator":
    from app.emulator.server import Emulator  # imported here to save a live gateway its memory

    emulator = Emulator(catalogue=catalogue, data_dir=settings.data_dir)
    await asyncio.to_thread(emulator.start)
    stack.push_async_callback(asyncio.to_thread, emulator.stop)
    return emulator


def _pointing_at(emulator: "Emulator", settings: Settings) -> Settings:
    """Returns the settings with the emulator's address for each vendor whose address is not set."""
    addresses = {name: getattr(settings, name) or emulator.http_url for name in EMULATED_ADDRESSES}
    return settings.model_copy(update=addresses)


@dataclass(frozen=True, slots=True)
class _Stores:
    """Where pictures are kept, and how they are found again."""

    storage: Gcs
    spool: DiskSpool
    gallery: Gallery
    private: PrivateStore
    finder: Finder


async def _stores(settings: Settings, storage: Gcs, work: WorkFolder, stack: AsyncExitStack) -> _Stores:
    spool = await asyncio.to_thread(
        DiskSpool,
        settings.spool_dir,
        min_free_bytes=settings.spool_min_free_bytes,
        fsync=settings.spool_fsync,
    )
    stack.callback(spool.close)
    _run(spool.run(storage, settings.spool_seconds), stack)
    gallery = Gallery(
        storage,
        spool,
        settings.gcs_bucket,
        wait_seconds=settings.upload_wait_seconds,
        retry_after=math.ceil(settings.spool_seconds),
    )
    stack.push_async_callback(gallery.aclose)
    private = PrivateStore(settings.private_place, storage)
    _run(housekeeping.sweep(private, settings.idempotency_seconds + _LATE_SECONDS), stack)
    finder = Finder(storage, spool, private, lambda: work.blobs(None))
    return _Stores(storage, spool, gallery, private, finder)


def _storage(
    settings: Settings, transport: Transport, google: Credentials | None, token: Bearer | None
) -> Gcs:
    return Gcs(
        transport=transport,
        project=settings.google_cloud_project,
        bucket=settings.gcs_bucket,
        public_base_url=settings.public_url,
        endpoint=settings.storage_emulator_host,
        timeout_seconds=settings.upload_seconds,
        credentials=token.headers if token else None,
        google=google,
    )


async def _ledger(
    settings: Settings, finder: Finder, stack: AsyncExitStack, clock: Callable[[], int] | None
) -> Ledger:
    call_seconds = settings.longest_call_seconds + _LATE_SECONDS
    terms = Terms(
        defaults=settings.budget_limits,
        call_ms=int(call_seconds * 1000),
        keep_ms=int(settings.idempotency_seconds * 1000),
    )
    folder = await asyncio.to_thread(ProcessFolder, settings.data_dir / "ledger", PREFIX)
    stack.callback(folder.close)
    ledger = Ledger(open_store(settings.database_url, terms, clock=clock), new_id())
    stack.push_async_callback(ledger.aclose)
    _run(Recovery(ledger, folder, finder.recover).run(), stack)
    return ledger


def _auth(settings: Settings, database: AsyncEngine, stack: AsyncExitStack) -> Auth:
    provider = None
    if settings.jwks_url:
        from app.services.jwks import Jwks  # imported here to save the memory of httpx

        provider = IdentityProvider(Jwks(settings.jwks_url), settings.jwt_issuer, settings.jwt_audience)
    tokens = Tokens(
        secret=settings.signing_secret,
        algorithm=settings.jwt_algorithm,
        lifetime_seconds=settings.jwt_expires_seconds,
        provider=provider,
        emulated=settings.cloud == "emulator",
    )
    url = settings.redis_url
    auth = Auth(
        users=Users(database, without=DEMO_ID if settings.cloud == "live" else None),
        keys=Keys(database),
        passwords=Passwords(),
        tokens=tokens,
        limits=LoginLimits(
            RateLimit(settings.login_rate_limit, name="login", redis_url=url),
            RateLimit(settings.login_account_rate_limit, name="login-account", redis_url=url),
            RateLimit(settings.login_address_rate_limit, name="login-address", redis_url=url),
        ),
    )
    stack.push_async_callback(auth.aclose)
    return auth


def _run(work: Coroutine[Any, Any, None], stack: AsyncExitStack) -> None:
    """Run `work` in the background until the stack is closed."""
    stack.push_async_callback(_end, asyncio.create_task(work))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
