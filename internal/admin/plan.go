package admin

import (
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// Kind says what a write of the camaster is part of.
type Kind string

// The kinds. A failover is one write. A switchover is two: the handover closes the
// role of the old camaster, the switchover itself then makes the new one the camaster.
const (
	KindSet        Kind = ""           // the camaster was set, and nothing more
	KindHandover   Kind = "handover"   // Host stays, with its role closed, so that Handover can get everything
	KindSwitchover Kind = "switchover" // Host, to whom it is handed over, has everything
	KindFailover   Kind = "failover"   // the camaster is lost; the epoch is raised
)

// Plan is what a failover or a switchover would do now, and what is in its way: GET
// /v1/plan. Nothing is changed by it, and a write looks again.
type Plan struct {
	Kind Kind   `json:"kind"` // failover, switchover
	From string `json:"from"` // the camaster
	To   string `json:"to"`
	// Version is the one to be replaced.
	Version string `json:"version"`
	// Handover: From hands over to To under this version; the conditions are those of
	// the write that ends this.
	Handover   bool        `json:"handover,omitempty"`
	Conditions []Condition `json:"conditions"`
	Loss       Loss        `json:"loss"`
	Steps      []PlanStep  `json:"steps"` // those of members are as far as nodes know them
	// Possible: no condition refuses.
	Possible bool `json:"possible"`
}

// Condition is one thing that has to be so before a master is made the camaster.
type Condition struct {
	Name   string `json:"name"` // a few words, the same each time
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what was seen, and what would put it right
	// Passed is what passes over it: accept-data-loss, force, or "" for nothing.
	Passed string `json:"passed,omitempty"`
	// Warning: it is shown, and refuses nothing.
	Warning bool `json:"warning,omitempty"`
	// Waits: if all goes well it comes true by itself in a while.
	Waits bool `json:"waits,omitempty"`
}

// What passes over a condition.
const (
	PassAcceptDataLoss = "accept-data-loss"
	PassForce          = "force"
)

// Refuses reports whether a condition is in the way of who accepts a loss of data, or
// forces. One does not stand for the other.
func (c *Condition) Refuses(acceptDataLoss, force bool) bool {
	switch {
	case c.OK || c.Warning:
		return false
	case c.Passed == PassAcceptDataLoss:
		return !acceptDataLoss
	case c.Passed == PassForce:
		return !force
	}
	return true
}

// Loss is what a failover loses at most of what was committed to the database.
type Loss struct {
	// Known: Bytes is how much of the camaster's log, as far as it was ever heard of,
	// the new one does not have. What it wrote after that is bounded by Since alone.
	Known   bool      `json:"known"`
	Bytes   uint64    `json:"bytes"`
	Since   time.Time `json:"since,omitzero"` // what was committed before is safe
	Seconds float64   `json:"seconds"`        // from Since until now
	Detail  string    `json:"detail"`
}

// PlanStep is one step of a plan.
type PlanStep struct {
	Host    string `json:"host,omitempty"`    // of the member that does it; "" for the nodes
	Service string `json:"service,omitempty"` // of the role
	Name    string `json:"name"`
	Detail  string `json:"detail,omitempty"`
}

// MasterMember is the member on a master's host, and what it says of that host.
type MasterMember struct {
	Name    string    `json:"name"`
	State   string    `json:"state"` // alive, dead, left
	Since   time.Time `json:"since,omitzero"`
	Release string    `json:"release,omitempty"`
	// Fresh: it lives, and what it says is what is. Else it is its last word.
	Fresh bool `json:"fresh"`
	// Age is how long ago it gave its last sign of life, in seconds.
	Age      float64           `json:"age"`
	Evidence evidence.Evidence `json:"evidence"`
}

// Role is what a member makes of its host; nil if none is known, or it has none.
func (m *Master) Role() *evidence.Role {
	if m.Member == nil {
		return nil
	}
	return m.Member.Evidence.Role
}

// Rejoin is a former camaster's way back that a member was asked for: POST
// /v1/masters/HOST/rejoin. Its evidence says, by the ID, what becomes of it.
type Rejoin struct {
	Host string `json:"host"`
	ID   string `json:"id"`
}
