// An AppSync resolver (runtime APPSYNC_JS) in front of the Lambda of fan_identity.serving.appsync.handler.
//
// Direct Lambda resolvers work without it, but then every error has the type Lambda:Unhandled. With it errors keep the
// type and code they have over HTTP, and data sources that were away are named in the header x-degraded.
import { util } from '@aws-appsync/utils'

export function request(ctx) {
  return {
    operation: 'Invoke',
    payload: {
      template: 'lambdaResponse',
      arguments: ctx.args,
      identity: ctx.identity,
      source: ctx.source,
      request: ctx.request,
      info: ctx.info,
    },
  }
}

export function response(ctx) {
  if (ctx.error) {
    util.error(ctx.error.message, ctx.error.type)
  }
  const { data, error, degraded } = ctx.result
  if (degraded.length > 0) {
    util.http.addResponseHeader('x-degraded', degraded.join(','))
  }
  if (error) {
    util.error(error.message, error.errorType, data, error.errorInfo)
  }
  return data
}
