//go:build linux

package main

import (
	"context"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// traffic is what a site does all the time: rows are written to the camaster's PostgreSQL,
// wherever its name leads, and agents run one run after the other.
type traffic struct {
	t    *T
	stop func() // lets runs come to their end; it may be called again

	mu   sync.Mutex
	acks []ack
	runs []stack.Result
}

// ack is a row that PostgreSQL has said to be committed.
type ack struct {
	id int64
	at time.Time
	on string
}

// writeAlong begins to write rows from a host, which asks a node where to.
func writeAlong(t *T, from, node string) *traffic {
	ctx, cancel := context.WithCancel(t.Context())
	l := &traffic{t: t}
	var all sync.WaitGroup
	d := &drill{t: t, node: node}
	all.Go(func() {
		for id := int64(1); ctx.Err() == nil; id++ {
			to := d.resolve(ctx, stack.Camaster)
			if to != nil && t.Host(from).WriteRow(ctx, to, id) == nil {
				l.mu.Lock()
				l.acks = append(l.acks, ack{id, time.Now(), to.Short})
				l.mu.Unlock()
			}
			pause(ctx, 2*glance)
		}
	})
	l.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	t.Cleanup(l.stop)
	return l
}

// runAgents runs agents, each again and again.
func runAgents(t *T, names ...string) *traffic {
	ended := make(chan struct{})
	l := &traffic{t: t}
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() {
			for {
				r := t.Host(name).Agent(t.Context())
				l.mu.Lock()
				l.runs = append(l.runs, r)
				l.mu.Unlock()
				select {
				case <-ended:
					return
				case <-t.Context().Done():
					return
				default:
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() { close(ended); all.Wait() })
	t.Cleanup(l.stop)
	return l
}

// rows are those that were acknowledged so far.
func (l *traffic) rows() []ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks[:len(l.acks):len(l.acks)]
}

// count is how many rows were acknowledged by a host.
func (l *traffic) count(on string) (n int) {
	for _, a := range l.rows() {
		if a.on == on {
			n++
		}
	}
	return n
}

// lost are the acknowledged rows that a host's PostgreSQL does not have.
func (l *traffic) lost(on string) (lost []ack) {
	all := l.rows() // first: more are written meanwhile
	has, err := l.t.Host(on).Rows(l.t.Context())
	l.t.Must(err)
	for _, a := range all {
		if !has[a.id] {
			lost = append(lost, a)
		}
	}
	return lost
}

// gap is the longest time from one on in which no row was acknowledged.
func (l *traffic) gap(from time.Time) (most time.Duration) {
	all := l.rows()
	for i := 1; i < len(all); i++ {
		if d := all[i].at.Sub(all[i-1].at); all[i].at.After(from) {
			most = max(most, d)
		}
	}
	return most
}
