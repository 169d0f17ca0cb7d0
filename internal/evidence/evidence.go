// Package evidence is what a member says of its own host: what only the host can
// know. It has types and arithmetic, and no I/O; gather has that.
package evidence

import "time"

// Evidence is one look at a host. Times are by the host's clock. What is nil does not
// exist there; what could not be looked at has an Error.
type Evidence struct {
	// Drain is the host's own wish to get no new work, as before a restart. Unlike an
	// operator's it is no register: it ends with the member's life.
	Drain        *Drain        `json:"drain,omitempty"`
	Puppetserver Puppetserver  `json:"puppetserver"`
	Code         []Environment `json:"code,omitempty"` // sorted by name
	Certificate  *Certificate  `json:"certificate,omitempty"`
	CRL          *CRL          `json:"crl,omitempty"`
	CA           *CA           `json:"ca,omitempty"`
	PostgreSQL   *PostgreSQL   `json:"postgresql,omitempty"`
	PuppetDB     *PuppetDB     `json:"puppetdb,omitempty"`
	Role         *Role         `json:"role,omitempty"` // nil on a host that cannot be camaster
}

// Drain is a wish to get no new work.
type Drain struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is undrained
}

// Holds reports whether the drain is in force; a nil one is not.
func (d *Drain) Holds(now time.Time) bool {
	return d != nil && (d.Until.IsZero() || now.Before(d.Until))
}

// Unfit says why a host should get no new work, as it says itself; "" if it should.
func (e *Evidence) Unfit(now time.Time) string {
	switch p := &e.Puppetserver; {
	case e.Drain.Holds(now):
		return "drained by its member: " + e.Drain.Reason
	case p.State == "stopping":
		return "its puppetserver is stopping"
	case p.Compiles != nil && !*p.Compiles:
		return "it cannot compile: " + p.CompileDetail
	}
	return ""
}

// Puppetserver is what puppetserver says on this host.
type Puppetserver struct {
	// State is the status service's word: running, starting, stopping, error, unknown;
	// or unreachable.
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"` // why it is not running
	// CAService: /status/v1/simple/ca answers 200. It says nothing of a seal.
	CAService bool `json:"ca_service,omitempty"`
	// Compiles is the deep check, GET /puppet/v3/node/CERTNAME through a JRuby; nil if
	// it was not made, or says nothing of this host: no PuppetDB answered, or nothing did in
	// time.
	Compiles      *bool  `json:"compiles,omitempty"`
	CompileDetail string `json:"compile_detail,omitempty"` // why not, or why it is not known
	JRubies       int    `json:"jrubies,omitempty"`        // 0: not known
	JRubiesFree   int    `json:"jrubies_free,omitempty"`
}

// Environment is the code of one Puppet environment.
type Environment struct {
	Name     string `json:"name"`
	Revision string `json:"revision"` // of git, r10k or a file; "" if it is not known
}

// Certificate is the host's own.
type Certificate struct {
	Names    []string  `json:"names"` // sorted
	NotAfter time.Time `json:"not_after"`
	Error    string    `json:"error,omitempty"`
}

// CRL is the host's own copy of the CA's revocation list, which puppetserver goes by.
type CRL struct {
	Number     string    `json:"number,omitempty"` // decimal
	ThisUpdate time.Time `json:"this_update,omitzero"`
	NextUpdate time.Time `json:"next_update,omitzero"` // it has expired then
	Error      string    `json:"error,omitempty"`
}

// CA is the state of the CA's files on this host.
type CA struct {
	Mode   string `json:"mode"`   // hot, service
	Sealed bool   `json:"sealed"` // nothing can be signed
	// Complete: the set is whole and verified; Problem says why not.
	Complete bool   `json:"complete"`
	Problem  string `json:"problem,omitempty"`
	Serial   string `json:"serial,omitempty"` // the next to be issued, hexadecimal as in the file
	Hash     string `json:"hash,omitempty"`   // of the whole set: equal hashes are equal sets
	Signed   int    `json:"signed,omitempty"` // certificates in signed/
	CRL      *CRL   `json:"crl,omitempty"`    // of the CA itself
	// Of a standby: from whom, when the set was last the same as there, and why it is
	// not now.
	Source string    `json:"source,omitempty"`
	Synced time.Time `json:"synced,omitzero"`
	Error  string    `json:"error,omitempty"`
}

// LSN is a position in PostgreSQL's write-ahead log, in bytes.
type LSN uint64

// PostgreSQL is the state of the database on this host.
type PostgreSQL struct {
	Role     string `json:"role"` // primary, standby, stopped, unknown
	Error    string `json:"error,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"` // fenced: a primary that refuses writes
	Timeline uint32 `json:"timeline,omitempty"`
	System   string `json:"system,omitempty"` // system identifier: equal for copies of one cluster
	// Written is a primary's end of log; the last one of a stopped primary.
	Written LSN `json:"written,omitempty"`
	// Of a standby: what has come and what is applied.
	Received LSN `json:"received,omitempty"`
	Replayed LSN `json:"replayed,omitempty"`
	// Streaming: it has a connection to its primary now.
	Streaming bool `json:"streaming,omitempty"`
	// PrimaryWritten is the farthest end of the primary's log that this standby ever
	// heard of, and when it did (kept over restarts).
	PrimaryWritten LSN       `json:"primary_written,omitempty"`
	PrimaryHeard   time.Time `json:"primary_heard,omitzero"`
	// Current is when it last had everything that the primary was known to have
	// written: what was committed before is here.
	Current time.Time `json:"current,omitzero"`
	// LastReplay is the commit time of the last transaction replayed.
	LastReplay time.Time `json:"last_replay,omitzero"`
	MaxLag     uint64    `json:"max_lag,omitempty"` // bytes; more refuse a failover
}

// Lag is how many bytes of the primary's log, as far as known, a standby has not
// received. known is false where it never heard of a primary.
func (p *PostgreSQL) Lag() (bytes uint64, known bool) {
	if p.PrimaryWritten == 0 {
		return 0, false
	}
	if p.Received >= p.PrimaryWritten {
		return 0, true
	}
	return uint64(p.PrimaryWritten - p.Received), true
}

// PuppetDB is what PuppetDB says on this host.
type PuppetDB struct {
	Mode  string `json:"mode"`  // hot, service
	State string `json:"state"` // running, starting, stopping, error, maintenance, stopped, unreachable
	// Writes: PostgreSQL's role says whether its writes can succeed; its own status
	// says yes on a standby too.
	Writes bool   `json:"writes,omitempty"`
	Queue  int    `json:"queue"` // commands waiting
	Error  string `json:"error,omitempty"`
}

// States of a role.
const (
	Waiting = "waiting" // just started: it has not heard all nodes, and is closed
	Open    = "open"    // it is camaster, and everything is open
	Opening = "opening"
	Closing = "closing"
	Closed  = "closed"  // nothing is open; it was camaster, and `rejoin` makes it a standby
	Standby = "standby" // nothing is open, and it follows the camaster
	Failed  = "failed"  // a step fails, and is tried again
)

// Role is what the member makes of its host, as the register says.
type Role struct {
	State   string `json:"state"`            // one of the constants
	Version string `json:"version"`          // of the newest camaster it knows
	Opened  string `json:"opened,omitempty"` // the version under which it is or was last open
	Former  bool   `json:"former,omitempty"` // it was open under an older version and has not rejoined
	// Unclean says why what was closed for a handover may not all have reached the others.
	Unclean  string    `json:"unclean,omitempty"`
	Reason   string    `json:"reason,omitempty"`   // why it is not open, or what it waits for
	Waits    []string  `json:"waits,omitempty"`    // nodes that it has not heard since its start
	Boot     uint64    `json:"boot"`               // of the member, as its reports have it
	Services []Service `json:"services,omitempty"` // in the order of opening
	// Steps are those of the last change, done and to come.
	Steps []Step `json:"steps,omitempty"`
	// Rejoin is the last one asked for.
	Rejoin *Rejoin `json:"rejoin,omitempty"`
}

// Service is one of the single-writer services.
type Service struct {
	Name   string `json:"name"`
	State  string `json:"state"` // open, standby, closed, unknown
	Detail string `json:"detail,omitempty"`
}

// Step is one of a change.
type Step struct {
	Version      string    `json:"version"` // of the camaster that it is for
	Service      string    `json:"service"`
	Name         string    `json:"name"`
	State        string    `json:"state"` // planned, running, done, failed
	Began        time.Time `json:"began,omitzero"`
	Milliseconds float64   `json:"milliseconds,omitempty"`
	Detail       string    `json:"detail,omitempty"` // what came of it
}

// Rejoin is the way back of a former camaster.
type Rejoin struct {
	ID     string    `json:"id"`    // of the request
	State  string    `json:"state"` // running, done, failed, manual
	Began  time.Time `json:"began"`
	Detail string    `json:"detail,omitempty"` // why it failed, or the commands to be run by hand
}
