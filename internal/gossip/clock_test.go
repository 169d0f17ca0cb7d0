package gossip_test

import "time"

// realClock must be called outside a bubble; it returns the time since then, to be
// asked outside too.
func realClock() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}
