"""Serves a folder as an S3 bucket, as far as a reader of trails asks: lists, and gives objects.

    python3 benches/bucket.py FOLDER

The bucket's name does not matter. It prints its address, and serves until its standard input ends. It checks no
signature and keeps the names in memory, so that what is measured is the reader, not the server.
"""

import bisect
import os
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

MOST = 1000


def names(folder):
    found = []
    for path, _, files in os.walk(folder):
        found += (os.path.relpath(os.path.join(path, file), folder) for file in files)
    return sorted(found)


class Bucket(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        _, _, key = url.path.lstrip("/").partition("/")
        if not key:
            return self.list(dict(urllib.parse.parse_qsl(url.query)))
        path = os.path.join(self.server.folder, urllib.parse.unquote(key))
        try:
            with open(path, "rb") as file:
                length = os.fstat(file.fileno()).st_size
                self.head(200, "application/x-gzip", length)
                self.wfile.flush()
                self.connection.sendfile(file)
        except FileNotFoundError:
            text = b"<Error><Code>NoSuchKey</Code></Error>"
            self.head(404, "application/xml", len(text))
            self.wfile.write(text)

    def list(self, query):
        keys, prefix, delimiter = self.server.keys, query.get("prefix", ""), query.get("delimiter")
        after = query.get("continuation-token") or query.get("start-after") or ""
        at = max(bisect.bisect_left(keys, prefix), bisect.bisect_right(keys, after))
        contents, folders, last, more = [], [], "", False
        while at < len(keys) and keys[at].startswith(prefix):
            if len(contents) + len(folders) == MOST:
                more = True
                break
            key = keys[at]
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                length = os.path.getsize(os.path.join(self.server.folder, key))
                contents.append(f"<Contents><Key>{escape(key)}</Key><Size>{length}</Size></Contents>")
                last, at = key, at + 1
            else:
                # Everything below is one folder: on behind its last name.
                folder = key[: cut + 1]
                folders.append(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>")
                last = folder + "\uffff"
                at = bisect.bisect_right(keys, last)
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(contents)}{''.join(folders)}</ListBucketResult>"
        ).encode()
        self.head(200, "application/xml", len(text))
        self.wfile.write(text)

    def head(self, status, kind, length):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    server.daemon_threads = True
    server.folder = sys.argv[1]
    server.keys = names(server.folder)
    print(f"http://127.0.0.1:{server.server_port} {len(server.keys)}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
