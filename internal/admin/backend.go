package admin

import "context"

// Backend is what the server shows and changes. Its methods are called
// concurrently. An error that is a [*Fault] goes to the client as it is; any other
// is an internal error.
type Backend interface {
	Status() Status
	Masters() []Master
	// Master returns one of them by its host name, without a final dot.
	Master(host string) (Master, error)
	Zones() []Zone
	Camaster() Camaster
	// History returns the writes of a key, of all keys if it is "", the newest first.
	History(key string) []Write
	Cluster() Cluster
	// Plan says what a failover or switchover to a host would do.
	Plan(kind Kind, to string) (Plan, error)

	// SetCamaster, Drain and Undrain write a register in actor's name. They return
	// when what is to be waited for has come, or ctx ends.
	SetCamaster(ctx context.Context, actor string, set SetCamaster) (Result, error)
	Drain(ctx context.Context, actor, host string, set SetDrain) (Result, error)
	Undrain(ctx context.Context, actor, host, reason string) (Result, error)

	// Rejoin asks the member on a host to make it a standby. It returns when the member
	// has begun, and not when it is done.
	Rejoin(ctx context.Context, actor, host string) (Rejoin, error)

	Keys(ctx context.Context) (Keys, error)
	AddKey(ctx context.Context, actor string) (KeyResult, error)
	UseKey(ctx context.Context, actor, id string) (KeyResult, error)
	RemoveKey(ctx context.Context, actor, id string) (KeyResult, error)

	// Events calls f with each event after the one numbered after, first those still
	// remembered, until the returned function is called. f must not block, and is
	// called by one goroutine at a time, also before Events returns. Fewer events are
	// remembered than [Limits].Queue, and their numbers only grow, over restarts too.
	Events(after uint64, f func(Event)) (cancel func())
}

// Fault is an error that a client can act on, as problem+json (RFC 9457).
type Fault struct {
	Status int    `json:"status"` // of HTTP
	Type   string `json:"type"`   // stable, for programs: a word such as "version-conflict"
	Title  string `json:"title"`
	Detail string `json:"detail"` // for this occurrence: what, why, and what would be right
	// Rules are the safety rules that refused, each with what it saw.
	Rules []string `json:"rules,omitempty"`
	// Current is the camaster that stands, after a version conflict.
	Current *Camaster `json:"current,omitempty"`
}

func (f *Fault) Error() string { return f.Detail }
