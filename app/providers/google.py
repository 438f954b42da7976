"""Where Google serves a location."""


def host(location: str) -> str:
    """Returns the host of a region, of a multi-region ("us", "eu") or of "global".

    https://docs.cloud.google.com/vertex-ai/generative-ai/docs/learn/locations
    """
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"
