// Package settings is the member's one file: its keys, their defaults by layout and
// what is allowed in them; and the check of a host against it. It changes nothing on
// the host, starts nothing and keeps no secret: those are in files that it names.
package settings

import (
	"net/netip"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
)

// Path is where the file is unless the command line says otherwise.
const Path = "/etc/puppetsrv/member.yaml"

// Settings are the file's, with every default filled in and every path absolute. They
// are not changed after Parse.
type Settings struct {
	File       string // that they were read from
	Layout     Layout
	Certname   string // lower case, without a final dot
	Datacenter string
	Port       int  // of puppetserver, as announced to the nodes; 1 to 65535
	Weight     int  // in SRV records; 1 to 65535
	CA         bool // it may become camaster
	// Camaster is the CNAME that Puppet's clients know the camaster by; "" if the file
	// does not say. Only Check uses it.
	Camaster string
	Nodes    []string // certnames of the DNS servers; at least one
	Gossip   Gossip
	Listen   netip.AddrPort // the members' own HTTPS
	State    string         // directory for what must survive a restart
	Socket   string         // unix socket for the host's own commands
	Metrics  netip.AddrPort // invalid: none
	Puppet   Puppet

	Puppetserver Puppetserver
	Roles        Roles
	Reload       [][]string    // commands, run on every master when the camaster has moved
	Interval     time.Duration // of evidence; 500ms to 1m
}

// Gossip is how the member joins the cluster.
type Gossip struct {
	Bind      netip.AddrPort
	Advertise netip.AddrPort // the zero value: as bound; port 0: as bound
	Join      []string       // HOST or HOST:PORT
	Key       string         // file with the ring's keys; "" on a loopback address only
	Profile   gossip.Profile
}

// Puppet says where Puppet's own things are.
type Puppet struct {
	SSLDir       string
	Cert, Key    string // of the host
	Authority    string // file of the CA's certificates
	CRL          string // the host's own, which puppetserver goes by
	CADir        string
	CAConfig     string // services.d/ca.cfg
	Environments string // directory of the code
	URL          string // of this host's puppetserver, without a final slash
}

// Puppetserver is how puppetserver is handled.
type Puppetserver struct {
	Restart []string
	// Defaults is the file that has JAVA_ARGS; only Check reads it.
	Defaults string
	Config   string        // directory of its configuration; only Check reads it
	Timeout  time.Duration // of a restart
}

// Roles are the single-writer services of this host; nil is none of that kind.
type Roles struct {
	CA         *CARole
	PostgreSQL *PostgreSQLRole
	PuppetDB   *PuppetDBRole
	Hooks      []Hook // in the order of opening
}

// Any says whether the host has any of them.
func (r *Roles) Any() bool {
	return r.CA != nil || r.PostgreSQL != nil || r.PuppetDB != nil || len(r.Hooks) > 0
}

// Mode is how a standby's service waits.
type Mode string

// The modes.
const (
	Hot     Mode = "hot"     // it runs, and cannot write
	Service Mode = "service" // it does not run
)

// CARole is the certificate authority.
type CARole struct {
	Mode     Mode
	Replicas []string // certnames that may have a copy of it, with its key
	Gap      int      // serials that are left out when it opens; 1 to 1000000
	Rate     uint64   // of what all replicas are sent, bytes a second
	// InfraCRL says that masters go by the CA's infra_crl.pem (enable-infra-crl in ca.conf).
	InfraCRL bool
}

// Ways to promote a standby.
const (
	PromoteFunction = "pg_promote"
	PromoteTrigger  = "trigger"
	PromoteCommand  = "command"
)

// Ways to keep a primary that is not the camaster's from writing.
const (
	FenceStop     = "stop"
	FenceReadOnly = "read-only"
)

// What is done when a former primary is to become a standby.
const (
	RejoinPrint = "print"
	RejoinRun   = "run"
)

// PostgreSQLRole is the database.
type PostgreSQLRole struct {
	Socket   string // directory
	Port     int
	User     string
	Database string
	OSUser   string // whom its programs run as
	Data     string // PGDATA
	Config   string // directory of postgresql.conf
	BinDir   string

	Promote        string   // one of the constants
	Trigger        string   // file, with PromoteTrigger
	PromoteCommand []string // with PromoteCommand
	Fence          string   // one of the constants
	Start, Stop    []string // empty: by pg_ctl
	Rejoin         string   // one of the constants
	Source         string   // connection string of the camaster's, without a password
	MaxLag         uint64   // bytes
}

// PuppetDBRole is PuppetDB.
type PuppetDBRole struct {
	Mode        Mode
	URL         string // without a final slash
	Config      string // conf.d directory; only Check reads it
	Start, Stop []string
	Timeout     time.Duration // of a start or a stop
}

// Hook is any further service.
type Hook struct {
	Name        string
	Open, Close []string
	Standby     []string // empty: as Close
	Check       []string // its exit code 0 says open; empty: nothing is known
	Timeout     time.Duration
}
