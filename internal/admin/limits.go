package admin

import "time"

// Limits bounds what one server spends on its clients. A zero field has the
// default that is named with it.
type Limits struct {
	Header     int           // bytes of a request's header: 16 KiB
	ReadHeader time.Duration // for the TLS handshake, and for a header: 5 s
	Body       int64         // bytes of a request's body: 64 KiB
	ReadBody   time.Duration // for a whole body: 10 s
	// Write is for an answer, from the end of the request's header on, and thus also
	// the longest a write can wait for other nodes: 30 s.
	Write time.Duration
	Idle  time.Duration // between two requests of a connection: 60 s

	Connections int // on each address: 256
	// Streams are event streams under way, an eighth of which one actor may have: 64.
	Streams int
	// Heartbeat is how often an event stream carries a comment: 15 s.
	Heartbeat time.Duration
	// Queue is how many events wait for a slow reader before it is dropped. It must
	// be more than a Backend remembers, which come all at once: 4096.
	Queue int
	Stall time.Duration // for one write to an event stream: 10 s

	Reads  Rate // of each actor: 100 a second, 200 at once
	Writes Rate // of each actor: 20 a second, 40 at once
}

// Rate is a token bucket.
type Rate struct {
	PerSecond float64
	Burst     int
}

// withDefaults fills the fields that are zero.
func (l Limits) withDefaults() Limits {
	fill(&l.Header, 16<<10)
	fill(&l.ReadHeader, 5*time.Second)
	fill(&l.Body, 64<<10)
	fill(&l.ReadBody, 10*time.Second)
	fill(&l.Write, 30*time.Second)
	fill(&l.Idle, time.Minute)
	fill(&l.Connections, 256)
	fill(&l.Streams, 64)
	fill(&l.Heartbeat, heartbeat)
	fill(&l.Queue, 4096)
	fill(&l.Stall, 10*time.Second)
	fill(&l.Reads, Rate{100, 200})
	fill(&l.Writes, Rate{20, 40})
	return l
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
