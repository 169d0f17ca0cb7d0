package role

import (
	"context"
	"time"
)

// State is how a service is.
type State string

// The states. A service that is not open cannot write, whoever asks it.
const (
	Open    State = "open"    // it serves, and writes
	Standby State = "standby" // it cannot write, and follows the camaster
	Closed  State = "closed"  // it cannot write, and follows nobody
	Unknown State = "unknown" // it could not be seen; it may be open
)

// Observation is one look at a service.
type Observation struct {
	State  State
	Detail string // one line for people: what was seen
	// Facts are the service's own, for its Plan.
	Facts any
}

// Step is one of those that change a service. It may be run again at any time, after
// any part of it: running it twice is running it once.
type Step struct {
	Name    string        // a few words, the same each time: "pg_promote()"
	Detail  string        // what will be done exactly, for a printed plan
	Timeout time.Duration // of Run
	// Run does it, and says in a line what came of it.
	Run func(ctx context.Context) (detail string, err error)
}

// Service is one of those that only the camaster may have open. Methods are called by
// one goroutine at a time.
type Service interface {
	Name() string
	// Observe looks, quickly and without changing anything.
	Observe(ctx context.Context) Observation
	// Plan says by which steps a service that was observed so becomes open, closed or
	// standby; none if it is. It changes nothing. An error says why it must not or
	// cannot become that, and what would be right.
	Plan(o Observation, to State) ([]Step, error)
}
