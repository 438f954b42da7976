"""Names of callers for the terminal."""

from sqlalchemy.ext.asyncio import AsyncEngine

from app.services.users import Users


async def usernames(database: AsyncEngine) -> dict[str, str]:
    """Returns the username of each user id."""
    return {user.id: user.username for user in await Users(database).all()}


def printable(name: str) -> str:
    """Returns the name, escaped if it has control characters, which the `sub` of a token can contain."""
    return name if name.isprintable() else ascii(name)
