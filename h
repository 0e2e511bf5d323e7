HTTP/1.1 403 Forbidden
Content-Type: application/json
X-Compute-Request-Id: req-ab206b0d-53cf-4d1f-a043-cbc47393a68d
X-OpenStack-Request-ID: req-ab206b0d-53cf-4d1f-a043-cbc47393a68d
OpenStack-API-Version: compute 2.96
X-OpenStack-Nova-API-Version: 2.96
Vary: OpenStack-API-Version
Vary: X-OpenStack-Nova-API-Version
Content-Length: 121
Date: Fri, 20 Nov 2026 13:15:06 GMT
Server: Python/3.11 aiohttp/3.14.5

