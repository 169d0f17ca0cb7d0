// Package admin is the API of a node: its server, its client, and what they say to
// each other. openapi.json describes it for everybody else.
//
// The server owns who may ask, how much and in what form; what is shown and changed
// is the [Backend]'s. It never listens without TLS on anything but a unix socket,
// and no certificate is believed longer than one request: a revocation counts from
// the next one on, also on a connection that is open.
package admin
