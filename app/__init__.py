"""Image Gateway: image generation through Vertex AI and Bedrock, with a ledger of every paid call."""

__version__ = "0.1.0"
