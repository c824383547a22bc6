// The routes that bench/api.py compares: status and initiate, with the same checks and the same headers,
// as a small service on Hono and ioredis would have them. A job is a hash and an entry in a list.
//
// PORT, REDIS_URL, RATE_LIMIT_MAX_REQUESTS and RATE_LIMIT_WINDOW_MS are read from the environment.

import { randomUUID } from 'node:crypto'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { cors } from 'hono/cors'
import { requestId } from 'hono/request-id'
import { secureHeaders } from 'hono/secure-headers'
import { Redis } from 'ioredis'
import { z } from 'zod'

const WINDOW_MS = Number(process.env.RATE_LIMIT_WINDOW_MS ?? 60_000)
const LIMIT = Number(process.env.RATE_LIMIT_MAX_REQUESTS ?? 1_000)
const POLL_SECONDS = '1'
const USER = /^[\x21-\x2b\x2d-\x7e]{1,128}$/
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

const app = new Hono()
app.use(requestId())
app.use(cors())
app.use(
  secureHeaders({
    contentSecurityPolicy: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
    xFrameOptions: 'DENY',
    // Not among the headers of the API that this is compared with.
    crossOriginOpenerPolicy: false,
    crossOriginResourcePolicy: false,
    originAgentCluster: false,
    xDnsPrefetchControl: false,
    xDownloadOptions: false,
    xPermittedCrossDomainPolicies: false,
    xXssProtection: false,
  }),
)

const problem = (c, status, error, message, more = {}) =>
  c.json(
    { type: `https://example.org/problems/${error}`, title: error, status, detail: message, error, message,
      requestId: c.get('requestId'), ...more },
    status,
    { 'content-type': 'application/problem+json' },
  )

app.use('/v1/*', async (c, next) => {
  const user = c.req.header('x-user-id')
  if (user === undefined || !USER.test(user)) return problem(c, 401, 'unauthenticated', 'Send the user in the x-user-id header.')
  c.set('user', user)
  const [spent, left] = await redis.spend(`peer:limit:${user}`, WINDOW_MS)
  const remaining = Math.max(0, LIMIT - spent)
  const seconds = Math.ceil(left / 1000)
  c.header('ratelimit-limit', `${LIMIT}`)
  c.header('ratelimit-remaining', `${remaining}`)
  c.header('ratelimit-reset', `${seconds}`)
  c.header('ratelimit-policy', `"default";q=${LIMIT};w=${WINDOW_MS / 1000}`)
  c.header('ratelimit', `"default";r=${remaining};t=${seconds}`)
  if (spent > LIMIT) {
    c.header('retry-after', `${seconds}`)
    return problem(c, 429, 'rate-limited', 'Too many requests.')
  }
  await next()
})

app.post('/v1/download/initiate', async (c) => {
  let given
  try {
    given = await c.req.json()
  } catch {
    return problem(c, 400, 'invalid-json', 'The body is not JSON.')
  }
  const read = initiateBody.safeParse(given)
  if (!read.success) return problem(c, 400, 'invalid-body', 'The body breaks a rule.', { errors: read.error.issues })
  const { file_ids, priority = 'normal' } = read.data
  const ids = [...new Set(file_ids)]
  const id = randomUUID()
  const now = Date.now()
  await redis
    .multi()
    .hset(`peer:job:${id}`, {
      id, user: c.get('user'), state: 'queued', priority, file_ids: JSON.stringify(ids), files_total: ids.length,
      files_done: 0, files_failed: 0, bytes_done: 0, bytes_total: 0, created_ms: now, updated_ms: now,
    })
    .lpush(`peer:queue:${priority}`, id)
    .exec()
  c.header('location', `/v1/download/status/${id}`)
  c.header('retry-after', POLL_SECONDS)
  return c.json({ jobId: id, status: 'queued', totalFileIds: file_ids.length, estimatedTime: '30-90 seconds' }, 202)
})

app.get('/v1/download/status/:id', async (c) => {
  const id = c.req.param('id')
  const [user, state, done, total, failed, bytesDone, bytesTotal, updated] = await redis.hmget(`peer:job:${id}`, ...FIELDS)
  if (user === null) return problem(c, 404, 'job-not-found', 'There is no such job.')
  if (user !== c.get('user')) return problem(c, 403, 'forbidden', 'The job is not yours.')
  const progress = { processed: Number(done), total: Number(total) }
  if (Number(bytesTotal)) Object.assign(progress, { bytes: Number(bytesDone), bytesTotal: Number(bytesTotal) })
  const body = { jobId: id, status: state, progress, updatedAt: new Date(Number(updated)).toISOString() }
  if (Number(failed)) body.failedFiles = Number(failed)
  const tag = `W/"${Number(updated).toString(36)}"`
  c.header('etag', tag)
  c.header('cache-control', 'no-cache')
  if (!FINISHED.has(state)) c.header('retry-after', POLL_SECONDS)
  if (c.req.header('if-none-match') === tag) return c.body(null, 304)
  return c.json(body)
})

app.get('/', (c) => c.json({ message: 'peer' }))

serve({ fetch: app.fetch, hostname: '127.0.0.1', port: Number(process.env.PORT ?? 3000) })
process.on('SIGTERM', () => process.exit(0))
