"""An nginx that answers 204 to whatever it is sent, over HTTP and HTTPS, and wrk against it."""
import pathlib
import re
import subprocess

import harness

CONFIGURATION = """
worker_processes 1;
worker_rlimit_nofile 16384;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 12000; }}
http {{
  access_log off;
  server_tokens off;
  keepalive_requests 100000000;
  keepalive_timeout 300s;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  ssl_certificate {directory}/certificate.pem;
  ssl_certificate_key {directory}/key.pem;
  server {{
    listen 127.0.0.1:{http} backlog=4096;
    listen 127.0.0.1:{https} ssl backlog=4096;
    location / {{ return 204; }}
  }}
}}
"""

LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/xml"
wrk.headers["webhook-id"] = "cb_j47000000000101a205b3995f00000000_TaskFinish_0"
wrk.body = string.rep("x", {bytes})
"""


class Nginx:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.http, self.https = harness.free_port(), harness.free_port()
        self.ca = self.directory / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", self.directory / "key.pem",
                        "-out", self.ca], check=True, capture_output=True)
        configuration = self.directory / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(directory=self.directory, http=self.http, https=self.https))
        self.process = subprocess.Popen(["nginx", "-p", self.directory, "-c", configuration, "-e", self.directory / "error.log"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        harness.eventually(lambda: (self.directory / "nginx.pid").exists() or self.process.poll() is not None, 10, what="nginx starts")
        assert self.process.poll() is None, (self.directory / "error.log").read_text()

    def url(self, scheme):
        return f"{scheme}://127.0.0.1:{getattr(self, scheme)}/callback"

    def authority(self):
        return self.ca.read_text()

    def wrk(self, scheme, connections, seconds, body_bytes):
        """POSTs answered a second."""
        script = self.directory / "post.lua"
        script.write_text(LUA.format(bytes=body_bytes))
        output = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, self.url(scheme)], check=True,
                                capture_output=True, text=True).stdout
        assert "Non-2xx" not in output and "Socket errors" not in output, output
        return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])

    def stop(self):
        self.process.terminate()
        self.process.wait()
