"""Cloud Storage's grammar of buckets and of `gs://` URIs.

https://docs.cloud.google.com/storage/docs/buckets#naming and .../objects#naming
"""

import re

BUCKET = r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
URI = re.compile(rf"gs://{BUCKET}(/(?!\.well-known/acme-challenge)[^\x00-\x1f\x7f]*)?")
FOLDER = re.compile(rf"gs://{BUCKET}((/(?!\.{{1,2}}(/|$))[\w.-]+)*)/?", re.ASCII)
"""A bucket and a prefix of plain characters, which is also safe as a path."""
MAX_URI_BYTES = 900
"""An object's name may have 1024 bytes. The rest is for the name of a file in the folder."""
