// The routes that bench/api.py compares: status and initiate, with the same checks and the same headers,
// as a small and quick service on Hono and ioredis would have them. A job is a hash and an entry in a list.
//
// PORT, REDIS_URL, RATE_LIMIT_MAX_REQUESTS and RATE_LIMIT_WINDOW_MS are read from the environment.

import { randomUUID } from 'node:crypto'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { Redis } from 'ioredis'
import { z } from 'zod'

const WINDOW_MS = Number(process.env.RATE_LIMIT_WINDOW_MS ?? 60_000)
const LIMIT = Number(process.env.RATE_LIMIT_MAX_REQUESTS ?? 1_000)
const POLICY = `"default";q=${LIMIT};w=${WINDOW_MS / 1000}`
const POLL_SECONDS = '1'
const USER = /^[\x21-\x2b\x2d-\x7e]{1,128}$/
const REQUEST_ID = /^[A-Za-z0-9._~:/+=@-]{1,128}$/
const FINISHED = new Set(['completed', 'failed', 'cancelled', 'expired'])
const FIELDS = ['user', 'state', 'files_done', 'files_total', 'files_failed', 'bytes_done', 'bytes_total', 'updated_ms']

// Commands of one tick go to Redis together, as they do in the API that this is compared with.
const redis = new Redis(process.env.REDIS_URL ?? 'redis://localhost:6379', { enableAutoPipelining: true })
redis.defineCommand('spend', {
  numberOfKeys: 1,
  lua: `
    local spent = redis.call('INCR', KEYS[1])
    if spent == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
    return {spent, redis.call('PTTL', KEYS[1])}
  `,
})

const initiateBody = z.object({
  file_ids: z.array(z.number().int().min(10_000).max(100_000_000)).min(1).max(1_000),
  priority: z.enum(['low', 'normal', 'high']).optional(),
})

// All headers of an answer go to Hono in one object: set one by one, or by its middleware, they cost half of
// the requests a second, because each answer then becomes a Response before it is written.
const headersOf = (c) => {
  const given = c.req.header('x-request-id')
  return {
    'content-type': 'application/json',
    'x-request-id': given !== undefined && REQUEST_ID.test(given) ? given : randomUUID(),
    'strict-transport-security': 'max-age=31536000; includeSubDomains',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
    'access-control-allow-origin': '*',
  }
}

const problem = (c, headers, status, error, message, more = {}) => {
  headers['content-type'] = 'application/problem+json'
  const body = {
    type: `https://example.org/problems/${error}`, title: error, status, detail: message, error, message,
    requestId: headers['x-request-id'], ...more,
  }
  return c.body(JSON.stringify(body), status, headers)
}

// Calls a handler for a user who is signed in and within the limit.
const limited = (handler) => async (c) => {
  const headers = headersOf(c)
  const user = c.req.header('x-user-id')
  if (user === undefined || !USER.test(user))
    return problem(c, headers, 401, 'unauthenticated', 'Send the user in the x-user-id header.')
  const [spent, left] = await redis.spend(`peer:limit:${user}`, WINDOW_MS)
  const remaining = Math.max(0, LIMIT - spent)
  const seconds = Math.ceil(left / 1000)
  headers['ratelimit-limit'] = `${LIMIT}`
  headers['ratelimit-remaining'] = `${remaining}`
  headers['ratelimit-reset'] = `${seconds}`
  headers['ratelimit-policy'] = POLICY
  headers['ratelimit'] = `"default";r=${remaining};t=${seconds}`
  if (spent > LIMIT) {
    headers['retry-after'] = `${seconds}`
    return problem(c, headers, 429, 'rate-limited', 'Too many requests.')
  }
  return handler(c, user, headers)
}

const app = new Hono()

app.post(
  '/v1/download/initiate',
  limited(async (c, user, headers) => {
    let given
    try {
      given = await c.req.json()
    } catch {
      return problem(c, headers, 400, 'invalid-json', 'The body is not JSON.')
    }
    const read = initiateBody.safeParse(given)
    if (!read.success)
      return problem(c, headers, 400, 'invalid-body', 'The body breaks a rule.', { errors: read.error.issues })
    const { file_ids, priority = 'normal' } = read.data
    const ids = [...new Set(file_ids)]
    const id = randomUUID()
    const now = Date.now()
    await redis
      .multi()
      .hset(`peer:job:${id}`, {
        id, user, state: 'queued', priority, file_ids: JSON.stringify(ids), files_total: ids.length,
        files_done: 0, files_failed: 0, bytes_done: 0, bytes_total: 0, created_ms: now, updated_ms: now,
      })
      .lpush(`peer:queue:${priority}`, id)
      .exec()
    headers.location = `/v1/download/status/${id}`
    headers['retry-after'] = POLL_SECONDS
    const body = { jobId: id, status: 'queued', totalFileIds: file_ids.length, estimatedTime: '30-90 seconds' }
    return c.body(JSON.stringify(body), 202, headers)
  }),
)

app.get(
  '/v1/download/status/:id',
  limited(async (c, user, headers) => {
    const id = c.req.param('id')
    const [owner, state, done, total, failed, bytesDone, bytesTotal, updated] = await redis.hmget(`peer:job:${id}`, ...FIELDS)
    if (owner === null) return problem(c, headers, 404, 'job-not-found', 'There is no such job.')
    if (owner !== user) return problem(c, headers, 403, 'forbidden', 'The job is not yours.')
    const tag = `"${Number(updated).toString(36)}"`
    headers.etag = tag
    headers['cache-control'] = 'no-cache'
    if (!FINISHED.has(state)) headers['retry-after'] = POLL_SECONDS
    if (c.req.header('if-none-match') === tag) {
      delete headers['content-type']
      return c.body(null, 304, headers)
    }
    const progress = { processed: Number(done), total: Number(total) }
    if (Number(bytesTotal)) Object.assign(progress, { bytes: Number(bytesDone), bytesTotal: Number(bytesTotal) })
    const body = { jobId: id, status: state, progress, updatedAt: new Date(Number(updated)).toISOString() }
    if (Number(failed)) body.failedFiles = Number(failed)
    return c.body(JSON.stringify(body), 200, headers)
  }),
)

app.get('/', (c) => c.json({ message: 'peer' }))

serve({ fetch: app.fetch, hostname: '127.0.0.1', port: Number(process.env.PORT ?? 3000) })
process.on('SIGTERM', () => process.exit(0))
