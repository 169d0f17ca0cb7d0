package role

// Stateless is implemented by a Service that has no data of its own. That it is found
// open where it should not be makes no former camaster of a host, and it is closed
// after those that have.
type Stateless interface{ Stateless() }

// Follower is implemented by a Service that may be a standby without it being known yet
// whether it can follow the camaster: a rejoin is done only when that is known.
type Follower interface {
	// Follows is asked of a service that is a standby. An error says what is not known.
	Follows(o Observation) error
}

// Cleaner is implemented by a Service that can tell whether all that it ever wrote is
// where the next camaster can have got it from. Others are believed to be clean once
// they were closed for a handover.
type Cleaner interface {
	// Clean is asked of a service that is closed. An error says what is missing.
	Clean(o Observation) error
}
