// Package stub is a throwaway Puppet CA, a stub Puppet master and a stub PuppetDB: real
// certificates, real TLS, real sockets, and of Puppet only what a probe and a member ask:
// the status service, the deep check, and a CA that signs and revokes from the files of
// a cadir as puppetserver does, each time from the disk.
//
// It owns what tests and the playground need to make a master healthy, slow, stopping,
// wrongly certified, sealed or dead. It never runs in production, compiles nothing and
// logs nothing: a client that connects and leaves is the normal case for a master that
// is being probed. It writes nowhere but in a cadir and a host CRL that it is given.
package stub
