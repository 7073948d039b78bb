/* See sender_transfer.h. Why each setting is there stands beside it; most guard against a default of libcurl 7.88. */
#include "server/callback/sender_transfer.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "server/base/clock.h"
#include "server/callback/sender_loop.h"

#define HEADER_LINE_MAX 2047
/* Unless it is named, curl waits for a 100 Continue before larger bodies. */
static const char expect_line[] = "Expect:";

static size_t header_line_size(const struct sender_header *header) {
  return strlen(header->name) + strlen(": ") + strlen(header->value) + 1;
}

/* Returns where the next one is to be written. */
static char *write_header_line(char *line, const struct sender_header *header) {
  size_t name = strlen(header->name), value = strlen(header->value);
  memcpy(line, header->name, name);
  memcpy(line + name, ": ", 2);
  memcpy(line + name + 2, header->value, value + 1);
  return line + name + 2 + value + 1;
}

static void check_header(struct transfer *transfer, const struct sender_header *header) {
  for (const char *c = header->value; *c; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7f)
      transfer_stop(transfer, CALLBACK_ERROR_CANCELLED, "the header %s has a control character", header->name);
  if (header_line_size(header) - 1 > HEADER_LINE_MAX)
    transfer_stop(transfer, CALLBACK_ERROR_CANCELLED, "the header %s is too long", header->name);
}

/* A list such as curl takes, made at once instead of line by line. */
static void set_headers(struct transfer *transfer, const struct sender_request *request) {
  struct curl_slist *lines = transfer->header_lines;
  char *text = (char *)(lines + request->header_count + 1);
  for (size_t i = 0; i < request->header_count; i++) {
    check_header(transfer, &request->headers[i]);
    lines[i] = (struct curl_slist){text, &lines[i + 1]};
    text = write_header_line(text, &request->headers[i]);
  }
  memcpy(text, expect_line, sizeof(expect_line));
  lines[request->header_count] = (struct curl_slist){text, 0};
  transfer->headers = lines;
}

struct transfer *transfer_create(const struct sender_request *request, struct sender_urls *urls, int64_t now_us) {
  size_t size = sizeof(struct transfer) + (request->header_count + 1) * sizeof(struct curl_slist) + sizeof(expect_line);
  for (size_t i = 0; i < request->header_count; i++)
    size += header_line_size(&request->headers[i]);
  struct transfer *transfer = malloc(size);
  if (!transfer)
    abort();
  *transfer = (struct transfer){
      .start_us = now_us,
      .timeout_us = (request->timeout_ms ? request->timeout_ms : SENDER_TIMEOUT_MS) * 1000LL,
      .connect_timeout_us =
          (request->connect_timeout_ms ? request->connect_timeout_ms : SENDER_CONNECT_TIMEOUT_MS) * 1000LL,
      .may_send = request->may_send,
      .narrowed = request->allowed,
      .trust = request->trust,
      .body = request->body,
      .body_bytes = request->body_bytes,
      .url = sender_urls_take(urls, request->url),
      .result.retry_after_ms = -1};
  if (request->keep_response && !(transfer->kept = malloc(SENDER_RESPONSE_KEPT_MAX)))
    abort();
  if (transfer->url->error)
    transfer_stop(transfer, CALLBACK_ERROR_BLOCKED_ADDRESS, "the URL %s", transfer->url->error);
  set_headers(transfer, request);
  return transfer;
}

void transfer_destroy(struct transfer *transfer) {
  sender_url_release(transfer->url);
  curl_slist_free_all(transfer->resolve);
  free(transfer->kept);
  free(transfer);
}

void transfer_stop(struct transfer *transfer, enum callback_error error, const char *format, ...) {
  if (transfer->stopped)
    return;
  transfer->stopped = error;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(transfer->result.message, sizeof(transfer->result.message), format, arguments);
  va_end(arguments);
}

static bool vet_one(struct transfer *transfer, const struct sockaddr *address) {
  const char *why, *whose = "by the operator";
  bool allowed = address_is_allowed(transfer->allowed, address, &why);
  if (allowed && transfer->narrowed) {
    allowed = address_is_allowed(transfer->narrowed, address, &why);
    whose = "by the rule's own ranges";
  }
  if (allowed)
    return true;
  char text[ADDRESS_TEXT_SIZE];
  address_print(address, text);
  transfer_stop(transfer, CALLBACK_ERROR_BLOCKED_ADDRESS, "%s is not allowed %s: %s", text, whose, why);
  return false;
}

bool transfer_vet(struct transfer *transfer, struct sockaddr_storage *addresses, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (!vet_one(transfer, (const struct sockaddr *)&addresses[i]))
      return false;
  return count > 0;
}

/* --- hooks --- */

static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address) {
  struct transfer *transfer = context;
  if (purpose != CURLSOCKTYPE_IPCXN || !vet_one(transfer, &address->addr))
    return CURL_SOCKET_BAD;
  address_print(&address->addr, transfer->result.address);
  int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  if (fd >= 0)
    sender_loop_opened(transfer->loop, fd);
  return fd;
}

/* Runs on new connections, when they are there and before the handshake: curl tells how long connecting took only
 * where the handshake succeeds. */
static CURLcode before_handshake(CURL *easy, void *ssl_context, void *context) {
  (void)easy;
  (void)ssl_context;
  struct transfer *transfer = context;
  transfer->dialled_us = clock_monotonic_us() - transfer->begin_us;
  return CURLE_OK;
}

/* Runs on new and on reused connections, after TLS and before any byte of the request. */
static int before_first_byte(void *context, char *remote, char *local, int remote_port, int local_port) {
  (void)local;
  (void)local_port;
  struct transfer *transfer = context;
  transfer->repeated = transfer->connected;
  transfer->connected = true;
  struct sockaddr_storage address;
  if (!url_host_to_address(remote, (uint16_t)remote_port, &address)) {
    transfer_stop(transfer, CALLBACK_ERROR_BLOCKED_ADDRESS, "the address of the connection is not known");
    return CURL_PREREQFUNC_ABORT;
  }
  if (!vet_one(transfer, (const struct sockaddr *)&address))
    return CURL_PREREQFUNC_ABORT;
  size_t length = strnlen(remote, ADDRESS_TEXT_SIZE - 1);
  memcpy(transfer->result.address, remote, length);
  transfer->result.address[length] = 0;
  if (transfer->may_send && !transfer->may_send(transfer->context)) {
    transfer_stop(transfer, CALLBACK_ERROR_CANCELLED, "not sent: the claim on the delivery was about to run out");
    return CURL_PREREQFUNC_ABORT;
  }
  return CURL_PREREQFUNC_OK;
}

static bool within_limit(struct transfer *transfer, size_t bytes) {
  transfer->received_bytes += bytes;
  if (transfer->received_bytes <= SENDER_RESPONSE_BYTES_MAX)
    return true;
  transfer_stop(transfer, CALLBACK_ERROR_RESPONSE_TOO_LARGE, "the answer is longer than %d bytes",
                SENDER_RESPONSE_BYTES_MAX);
  return false;
}

static size_t take_header(char *line, size_t size, size_t count, void *context) {
  struct transfer *transfer = context;
  size_t length = size * count;
  if (!within_limit(transfer, length))
    return 0;
  static const char name[] = "retry-after:";
  if (length > 5 && !strncasecmp(line, "HTTP/", 5)) {
    transfer->retry_after[0] = 0;
  } else if (length > sizeof(name) - 1 && !strncasecmp(line, name, sizeof(name) - 1)) {
    line += sizeof(name) - 1;
    length -= sizeof(name) - 1;
    while (length && (line[length - 1] == '\r' || line[length - 1] == '\n'))
      length--;
    if (length < sizeof(transfer->retry_after)) {
      memcpy(transfer->retry_after, line, length);
      transfer->retry_after[length] = 0;
    }
  }
  return size * count;
}

static size_t take_body(char *data, size_t size, size_t count, void *context) {
  struct transfer *transfer = context;
  size_t length = size * count, room = SENDER_RESPONSE_KEPT_MAX - transfer->kept_bytes;
  if (transfer->kept) {
    size_t taken = length < room ? length : room;
    memcpy(transfer->kept + transfer->kept_bytes, data, taken);
    transfer->kept_bytes += taken;
  }
  return within_limit(transfer, length) ? length : 0;
}

/* --- settings --- */

/* `+host:port:address,...`: the plus makes the entry expire from curl's cache. */
static bool write_addresses(struct transfer *transfer, const struct sockaddr_storage *addresses, size_t count) {
  char line[URL_HOST_SIZE + 16 + 16 * (ADDRESS_TEXT_SIZE + 3)];
  size_t used = (size_t)snprintf(line, sizeof(line), "+%s:%u:", transfer->url->url.host, transfer->url->url.port);
  for (size_t i = 0; i < count; i++) {
    char text[ADDRESS_TEXT_SIZE];
    address_print((const struct sockaddr *)&addresses[i], text);
    bool six = addresses[i].ss_family == AF_INET6;
    used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%s%s%s", i ? "," : "", six ? "[" : "", text,
                             six ? "]" : "");
    if (used >= sizeof(line))
      return false;
  }
  transfer->resolve = curl_slist_append(0, line);
  return transfer->resolve;
}

struct number_setting {
  CURLoption option;
  long value;
};

static const struct number_setting number_settings[] = {
    {CURLOPT_NOSIGNAL, 1},
    {CURLOPT_POST, 1},
    /* 7.88 has known faults in HTTP/2. */
    {CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1},
    {CURLOPT_FOLLOWLOCATION, 0},
    {CURLOPT_DISALLOW_USERNAME_IN_URL, 1},
    {CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2},
    {CURLOPT_SSL_VERIFYPEER, 1},
    {CURLOPT_SSL_VERIFYHOST, 2},
    /* Answers are short and dropped; every handle has one of these. */
    {CURLOPT_BUFFERSIZE, 2048},
    /* Over TLS a body goes through this buffer, one a request in flight; curl takes no smaller one. */
    {CURLOPT_UPLOAD_BUFFERSIZE, 16384},
    {CURLOPT_MAXAGE_CONN, 60},
    {CURLOPT_TCP_KEEPALIVE, 1},
    /* Do not wait for a resolver thread when a transfer ends. */
    {CURLOPT_QUICK_EXIT, 1},
};

bool transfer_prepare(CURL *easy, const char *ca_file) {
  for (size_t i = 0; i < sizeof(number_settings) / sizeof(number_settings[0]); i++)
    if (curl_easy_setopt(easy, number_settings[i].option, number_settings[i].value) != CURLE_OK)
      return false;
  /* A CA path switches the cache of the parsed bundle off. A proxy of the environment would hide the target. */
  return !curl_easy_setopt(easy, CURLOPT_CAPATH, (char *)0) && !curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file) &&
         !curl_easy_setopt(easy, CURLOPT_PROXY, "") && !curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") &&
         !curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket) &&
         !curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, before_handshake) &&
         !curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, before_first_byte) &&
         !curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header) &&
         !curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
}

static bool set_hooks(struct transfer *transfer) {
  CURL *easy = transfer->easy;
  return !curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer) &&
         !curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, transfer) &&
         !curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer) &&
         !curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer) &&
         !curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer) && !curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer) &&
         !curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->curl_message);
}

static bool set_blob(CURL *easy, CURLoption option, const char *pem) {
  struct curl_blob blob = {.data = (void *)pem, .len = strlen(pem), .flags = CURL_BLOB_COPY};
  return curl_easy_setopt(easy, option, pem[0] ? &blob : (struct curl_blob *)0) == CURLE_OK;
}

/* These are part of what curl compares before it takes a kept connection or TLS session again (but for the key, of
 * which there is one to a certificate), so one that was opened with other ones, or with none, is never used. Own
 * certificates take the place of the bundle and leave curl's cache of it alone. */
static bool set_trust(struct transfer *transfer) {
  static const struct sender_trust none = {"", "", ""};
  const struct sender_trust *trust = transfer->trust ? transfer->trust : &none;
  return set_blob(transfer->easy, CURLOPT_CAINFO_BLOB, trust->ca_certificates) &&
         set_blob(transfer->easy, CURLOPT_SSLCERT_BLOB, trust->client_certificate) &&
         set_blob(transfer->easy, CURLOPT_SSLKEY_BLOB, trust->client_key);
}

/* Every one of these is set for every request: the handle still has what the one before it brought. */
static bool set_request(struct transfer *transfer, long left_ms) {
  CURL *easy = transfer->easy;
  long connect_ms = (long)(transfer->connect_timeout_us / 1000);
  if (connect_ms > left_ms)
    connect_ms = left_ms;
  return !curl_easy_setopt(easy, CURLOPT_CURLU, transfer->url->parsed) &&
         !curl_easy_setopt(easy, CURLOPT_RESOLVE, transfer->resolve) &&
         !curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->body) &&
         !curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)transfer->body_bytes) &&
         !curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers) &&
         !curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, left_ms) &&
         !curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
}

bool transfer_begin(struct transfer *transfer, CURL *easy, const struct sockaddr_storage *addresses, size_t count,
                    int64_t now_us) {
  transfer->easy = easy;
  transfer->begin_us = now_us;
  if (!transfer->url->url.is_address)
    transfer->result.dns_us = now_us - transfer->start_us;
  int64_t left_ms = (transfer->timeout_us - transfer->result.dns_us) / 1000;
  if (left_ms <= 0) {
    transfer_stop(transfer, CALLBACK_ERROR_TIMEOUT, "no time was left after resolving the name");
    return false;
  }
  bool set = (transfer->url->url.is_address || write_addresses(transfer, addresses, count)) && set_hooks(transfer) &&
             set_trust(transfer) && set_request(transfer, (long)left_ms);
  if (!set)
    transfer_stop(transfer, CALLBACK_ERROR_CANCELLED, "curl refused a setting of the request");
  return set;
}

/* --- the end --- */

static enum callback_error error_of_connecting(CURL *easy) {
  long os_error = 0;
  curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_error);
  if (os_error == ETIMEDOUT)
    return CALLBACK_ERROR_CONNECT_TIMEOUT;
  return os_error == ECONNRESET ? CALLBACK_ERROR_RESET : CALLBACK_ERROR_CONNECT_REFUSED;
}

static enum callback_error error_of_code(const struct transfer *transfer, CURLcode code) {
  switch (code) {
  case CURLE_OK:
    return callback_error_of_status(transfer->result.http_status);
  case CURLE_COULDNT_RESOLVE_HOST:
    return CALLBACK_ERROR_DNS;
  case CURLE_COULDNT_CONNECT:
    return error_of_connecting(transfer->easy);
  case CURLE_OPERATION_TIMEDOUT:
    return transfer->connected ? CALLBACK_ERROR_TIMEOUT : CALLBACK_ERROR_CONNECT_TIMEOUT;
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CIPHER:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_ISSUER_ERROR:
  case CURLE_SSL_INVALIDCERTSTATUS:
    return CALLBACK_ERROR_TLS;
  case CURLE_OUT_OF_MEMORY: /* also curl's own limit on the length of a header */
#if LIBCURL_VERSION_NUM >= 0x080600
  case CURLE_TOO_LARGE:
#endif
    return transfer->connected ? CALLBACK_ERROR_RESPONSE_TOO_LARGE : CALLBACK_ERROR_CANCELLED;
  case CURLE_RECV_ERROR:
  case CURLE_SEND_ERROR:
    /* In TLS 1.3 a receiver refuses the client's certificate when the handshake is over for us. */
    return strstr(transfer->curl_message, " alert ") ? CALLBACK_ERROR_TLS : CALLBACK_ERROR_RESET;
  default:
    return CALLBACK_ERROR_RESET;
  }
}

static int64_t info_us(CURL *easy, CURLINFO info) {
  curl_off_t value = 0;
  curl_easy_getinfo(easy, info, &value);
  return value;
}

/* curl counts each phase from the beginning of the transfer. */
static void take_durations(struct transfer *transfer) {
  struct sender_result *result = &transfer->result;
  int64_t connected = info_us(transfer->easy, CURLINFO_CONNECT_TIME_T);
  int64_t secured = info_us(transfer->easy, CURLINFO_APPCONNECT_TIME_T);
  int64_t first = info_us(transfer->easy, CURLINFO_STARTTRANSFER_TIME_T);
  int64_t ready = secured > connected ? secured : connected;
  result->connect_us = connected ? connected : transfer->dialled_us;
  result->tls_us = secured > connected ? secured - connected : 0;
  result->first_byte_us = first > ready ? first - ready : 0;
}

void transfer_end(struct transfer *transfer, CURLcode code, int64_t now_us, int64_t wall_ms) {
  struct sender_result *result = &transfer->result;
  result->total_us = now_us - transfer->start_us;
  result->response = transfer->kept;
  result->response_bytes = transfer->kept_bytes;
  if (transfer->easy) {
    long status = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    result->http_status = (int)status;
    take_durations(transfer);
  }
  if (transfer->retry_after[0])
    result->retry_after_ms = schedule_parse_retry_after(transfer->retry_after, wall_ms);
  if (transfer->stopped) {
    result->error = transfer->stopped;
    return;
  }
  assert(transfer->easy);
  result->error = error_of_code(transfer, code);
  if (code != CURLE_OK)
    snprintf(result->message, sizeof(result->message), "%s",
             transfer->curl_message[0] ? transfer->curl_message : curl_easy_strerror(code));
  else if (result->error)
    snprintf(result->message, sizeof(result->message), "the receiver answered with status %d", result->http_status);
}
