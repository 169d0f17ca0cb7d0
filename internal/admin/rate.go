package admin

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxActors bounds how many actors have a bucket at a time.
const maxActors = 1024

// rates are the token buckets of the actors.
type rates struct {
	read, write Rate

	mu      sync.Mutex
	buckets map[string]*buckets
}

type buckets struct{ read, write *rate.Limiter }

func newRates(l Limits) *rates {
	return &rates{read: l.Reads, write: l.Writes, buckets: make(map[string]*buckets)}
}

func (r Rate) limiter() *rate.Limiter { return rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst) }

// take takes a token of an actor. Without one, wait is how long until there is one.
func (r *rates) take(actor string, write bool, now time.Time) (wait time.Duration, ok bool) {
	r.mu.Lock()
	b := r.buckets[actor]
	if b == nil {
		if len(r.buckets) >= maxActors {
			r.forget(now)
		}
		b = &buckets{r.read.limiter(), r.write.limiter()}
		r.buckets[actor] = b
	}
	r.mu.Unlock()
	limiter := b.read
	if write {
		limiter = b.write
	}
	if limiter.AllowN(now, 1) {
		return 0, true
	}
	missing := max(1-limiter.TokensAt(now), 0)
	return time.Duration(missing / float64(limiter.Limit()) * float64(time.Second)), false
}

// bound is the rate for people.
func (r *rates) bound(write bool) string {
	if write {
		return fmt.Sprintf("%g writes a second", r.write.PerSecond)
	}
	return fmt.Sprintf("%g reads a second", r.read.PerSecond)
}

// forget drops the buckets that are full, which are as good as new ones; all of
// them if none is.
func (r *rates) forget(now time.Time) {
	for actor, b := range r.buckets {
		if b.read.TokensAt(now) >= float64(r.read.Burst) && b.write.TokensAt(now) >= float64(r.write.Burst) {
			delete(r.buckets, actor)
		}
	}
	if len(r.buckets) >= maxActors {
		clear(r.buckets)
	}
}
