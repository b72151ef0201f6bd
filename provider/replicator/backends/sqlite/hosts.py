"""Host names of S3 URLs that litestream reads as a bucket and its store, where boto3 takes them for a bucket's name."""

from __future__ import annotations

import re
from urllib.parse import urlencode

# As in litestream 0.5.17, an unescaped dot included: it stands for any character.
_STORES: tuple[tuple[re.Pattern[str], str | None], ...] = (
    (re.compile(r"(?P<bucket>.+)\.s3(?:\.(?P<region>[^.]+))?\.amazonaws\.com"), None),
    (
        re.compile(r"(?:(?P<bucket>.+)\.)?(?P<region>[^.]+)\.digitaloceanspaces.com"),
        "https://{region}.digitaloceanspaces.com",
    ),
    (
        re.compile(r"(?:(?P<bucket>.+)\.)?s3.(?P<region>[^.]+)\.backblazeb2.com"),
        "https://s3.{region}.backblazeb2.com",
    ),
    (re.compile(r"(?:(?P<bucket>.+)\.)?(?P<region>)s3.filebase.com"), "https://s3.filebase.com"),
    (re.compile(r"(?:(?P<bucket>.+)\.)?s3.(?P<region>[^.]+)\.scw\.cloud"), "https://s3.{region}.scw.cloud"),
)


def form_to_write(host: str, prefix: str) -> str | None:
    """Return the URL that names the same bucket and store for both; `None` where both take the host for a bucket."""
    if ":" in host and ".com" not in host:
        bucket, _, store = host.rpartition(":")[0].partition(".")
        return _url(bucket if store else "", prefix, f"http://{host.removeprefix(f'{bucket}.')}", None)
    for pattern, endpoint in _STORES:
        if match := pattern.fullmatch(host):
            region = match["region"]
            return _url(match["bucket"], prefix, endpoint and endpoint.format(region=region), region)
    return None


def _url(bucket: str | None, prefix: str, endpoint: str | None, region: str | None) -> str:
    settings = {key: value for key, value in (("endpoint", endpoint), ("region", region)) if value}
    query = urlencode(settings, safe=":/")
    return f"s3://{bucket or 'bucket'}/{prefix}" + (f"?{query}" if query else "")
