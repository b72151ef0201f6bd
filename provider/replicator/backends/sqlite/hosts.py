"""Names in S3 URLs: hosts that litestream and boto3 read differently, and names that boto3 rejects."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlencode, urlsplit

# As in litestream 0.5.17, including an unescaped dot, which matches any character.
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

_URL = re.compile(r"(?i)https?://[^\s?#\\\x00-\x20\x7f]+")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_LONGEST_HOST = 255
_REGION = re.compile(r"(?![0-9]+$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


def form_to_write(host: str, prefix: str) -> str | None:
    """Return the URL that both read as the same bucket and store; `None` if both take the host for a bucket."""
    if ":" in host and ".com" not in host:
        bucket, _, store = host.rpartition(":")[0].partition(".")
        return _url(bucket if store else "", prefix, f"http://{host.removeprefix(f'{bucket}.')}", None)
    for pattern, endpoint in _STORES:
        if match := pattern.fullmatch(host):
            region = match["region"]
            return _url(match["bucket"], prefix, endpoint and endpoint.format(region=region), region)
    return None


def is_address(endpoint: str) -> bool:
    """Tell whether the S3 client accepts an endpoint."""
    if not _URL.fullmatch(endpoint):
        return False
    try:
        address = urlsplit(endpoint)
        host, port = address.hostname or "", address.port
        if ":" in host:
            ip_address(host)
    except ValueError:  # an extra bracket, or a port that is not a number
        return False
    is_host = ":" in host or (
        len(host) <= _LONGEST_HOST and all(map(_LABEL.fullmatch, host.removesuffix(".").split(".")))
    )
    return is_host and "@" not in address.netloc and port != 0


def is_region(name: str) -> bool:
    """Tell whether the S3 client accepts a name as a region."""
    return _REGION.fullmatch(name) is not None


def _url(bucket: str | None, prefix: str, endpoint: str | None, region: str | None) -> str:
    settings = {key: value for key, value in (("endpoint", endpoint), ("region", region)) if value}
    query = urlencode(settings, safe=":/")
    return f"s3://{bucket or 'bucket'}/{prefix}" + (f"?{query}" if query else "")
