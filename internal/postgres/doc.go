// Package postgres observes, opens, fences and rejoins the PostgreSQL server of one
// host: PuppetDB's database, of which one host has the primary and others streaming
// standbys.
//
// The failure that it is there for: PostgreSQL lets any copy of a cluster be promoted,
// and a former primary that comes back writes as if nothing had been. So a server that
// is closed has a standby.signal in its data directory, with which whoever starts it
// gets a server in recovery, which writes nothing; see Service.Guard. And a server is
// closed only when no process has its data directory any more.
//
// How much a failover would lose is measured before it is needed: see known.
//
// It never decides who is camaster, and never changes a server but by a role.Step. It
// never has a password: those are in files that libpq reads.
package postgres
