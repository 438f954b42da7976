"""The names of callers, safe for a terminal."""

from sqlalchemy.ext.asyncio import AsyncEngine

from app.services.users import Users


async def usernames(database: AsyncEngine) -> dict[str, str]:
    """Returns the username of each user id."""
    return {user.id: user.username for user in await Users(database).all()}


def printable(name: str) -> str:
    """Returns the name, escaped if it is not printable: the `sub` of a token can have line breaks."""
    return name if name.isprintable() else ascii(name)
