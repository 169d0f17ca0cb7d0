// Package stub is a throwaway Puppet CA and a stub Puppet master: real
// certificates, real TLS, real sockets, and nothing of Puppet but the status
// service that a probe asks.
//
// It owns what tests and the playground need to make a master healthy, slow,
// stopping, wrongly certified or dead. It never runs in production, keeps no
// files and logs nothing: a client that connects and leaves is the normal case
// for a master that is being probed.
package stub
