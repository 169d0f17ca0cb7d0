// Package casync brings the CA's files from the camaster to its standbys, and its CRL to
// every master, one way and over mutual TLS.
//
// A standby asks what has changed, and is answered when something has; it fetches what
// it does not have, and hands the set over to cadir, which verifies it and replaces it
// whole. What it asks of whom, and whether it may at all, its user says: nothing here
// knows who is camaster, opens a CA, or writes to one that is open.
//
// GET /v1/ca/changes answers lines of JSON: a head, then a file each. POST /v1/ca/files
// answers a tar archive of those that were asked for. GET /v1/crl answers the CRL. The
// first two are for the certnames that may have the CA's key; the CRL is for everyone
// whom the CA knows, as puppetserver gives it to everyone too.
package casync
