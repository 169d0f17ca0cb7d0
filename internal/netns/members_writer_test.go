//go:build linux

package netns_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// ack is a row that a client was told is committed.
type ack struct {
	id int64
	at time.Time // after it was told
	to string    // the host
}

// writers are a client in each datacenter, on m2 and m4, that write rows all the time to
// whoever is the camaster, as their own node's DNS has it.
type writers struct {
	d    *databases
	stop func()

	mu   sync.Mutex
	acks []ack
	next int64
}

func (d *databases) write() *writers {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writers{d: d}
	var all sync.WaitGroup
	for _, from := range []string{"m2", "m4"} {
		all.Go(func() { w.write(ctx, from) })
	}
	w.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	d.s.t.Cleanup(w.stop)
	return w
}

// rowSize is how long a row is, in bytes.
const rowSize = 500

// filler is not compressed by PostgreSQL.
func filler() string {
	b := make([]byte, rowSize)
	for i := range b {
		b[i] = byte('a' + rand.IntN(26))
	}
	return string(b)
}

func (w *writers) write(ctx context.Context, from string) {
	h, n := w.d.s.hosts[from], w.d.s.nodes[nodeOf[datacenterOf[from]]]
	for ctx.Err() == nil {
		if to := w.d.s.camasterOf(h, n); to != "" {
			w.session(ctx, from, to)
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// session writes until something fails.
func (w *writers) session(ctx context.Context, from, to string) {
	connecting, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := w.d.connect(connecting, w.d.s.hosts[from], to)
	if err != nil {
		return
	}
	defer closeConn(c)
	for ctx.Err() == nil {
		w.mu.Lock()
		w.next++
		id := w.next
		w.mu.Unlock()
		writing, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := c.Exec(writing, "INSERT INTO rows (id, filler) VALUES ($1, $2)", id, filler())
		cancel()
		if err != nil {
			return
		}
		w.mu.Lock()
		w.acks = append(w.acks, ack{id, time.Now(), to})
		w.mu.Unlock()
		pause(ctx, 10*time.Millisecond)
	}
}

// all are those so far.
func (w *writers) all() []ack {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acks[:len(w.acks):len(w.acks)]
}

// more waits for n more rows on a host.
func (w *writers) more(to string, n int) {
	w.d.s.t.Helper()
	began := len(w.all())
	eventually(w.d.s.t, "rows are written to "+to, func() bool {
		got := 0
		for _, a := range w.all()[began:] {
			if a.to == to {
				got++
			}
		}
		return got >= n
	})
}

// longest is the longest time from one on in which nothing was acknowledged, and when it
// began.
func (w *writers) longest(from time.Time) (most time.Duration, at time.Time) {
	all := w.all()
	for i := 1; i < len(all); i++ {
		if d := all[i].at.Sub(all[i-1].at); d > most && all[i].at.After(from) {
			most, at = d, all[i-1].at
		}
	}
	return most, at
}

// missing are the acknowledged rows that a host's server does not have.
func (w *writers) missing(on string) (lost []ack) {
	w.d.s.t.Helper()
	all := w.all() // first: more are written meanwhile
	has := w.d.rows(on)
	for _, a := range all {
		if !has[a.id] {
			lost = append(lost, a)
		}
	}
	return lost
}

// intruder tries all the time to write to one host's server, whoever is camaster.
type intruder struct {
	stop    func()
	mu      sync.Mutex
	written []time.Time
	refused map[string]int // by the reason
}

func (d *databases) intrude(from, to string) *intruder {
	ctx, cancel := context.WithCancel(context.Background())
	x := &intruder{refused: make(map[string]int)}
	var done sync.WaitGroup
	done.Go(func() {
		for n := int64(-1); ctx.Err() == nil; n-- {
			err := d.tryWrite(ctx, from, to, n)
			x.mu.Lock()
			if err == nil {
				x.written = append(x.written, time.Now())
			} else {
				x.refused[reason(err)]++
			}
			x.mu.Unlock()
			pause(ctx, 10*time.Millisecond)
		}
	})
	x.stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	d.s.t.Cleanup(x.stop)
	return x
}

func (d *databases) tryWrite(ctx context.Context, from, to string, id int64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := d.connect(ctx, d.s.hosts[from], to)
	if err != nil {
		return err
	}
	defer closeConn(c)
	_, err = c.Exec(ctx, "INSERT INTO rows (id) VALUES ($1)", id)
	return err
}

// reason is what kind of refusal an error is.
func reason(err error) string {
	for _, r := range []string{"25006", "57P03", "57P01", "refused", "timeout", "canceled", "reset", "EOF"} {
		if strings.Contains(err.Error(), r) {
			return r
		}
	}
	return err.Error()
}

func (x *intruder) was(r string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.refused[r]
}
