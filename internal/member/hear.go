package member

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// roll is which nodes a member has heard since its start. A write stands when one node
// has it. So one that has missed writes can be sure to know the newest only when every
// node has told what it holds, after the start, and it has come.
type roll struct {
	mu    sync.Mutex
	heard map[string]bool // by certname
	nodes []string        // all that there are, certnames
	more  chan struct{}   // there may be another one
}

func newRoll(nodes []string) *roll {
	return &roll{heard: make(map[string]bool), nodes: nodes, more: make(chan struct{}, 1)}
}

// missing are the nodes not heard yet, as configured.
func (r *roll) missing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var missing []string
	for _, n := range r.nodes {
		if !r.heard[n] {
			missing = append(missing, n)
		}
	}
	return missing
}

// setNodes takes others; who was heard stays heard.
func (r *roll) setNodes(nodes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = slices.Clone(nodes)
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// take counts the nodes whose newest version is known here, and reports whether any is
// new among them.
func (r *roll) take(answers []cluster.Standing, known register.Version) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range answers {
		if a.Err == nil && known.Compare(a.Version) >= 0 && slices.Contains(r.nodes, a.Certname) && !r.heard[a.Certname] {
			r.heard[a.Certname] = true
			news = true
		}
	}
	return news
}

// Pauses between two rounds of questions: the first come quickly, for a whole
// datacenter may wait for a booting camaster.
const (
	rollFirst = 100 * time.Millisecond
	rollMost  = 2 * time.Second
)

// hear asks until every node was heard, which may be never, and again when a reload
// names another one.
func (m *Member) hear(ctx context.Context) {
	pause := rollFirst
	for {
		for len(m.roll.missing()) == 0 {
			select {
			case <-m.roll.more:
				pause = rollFirst
			case <-ctx.Done():
				return
			}
		}
		answers := m.cluster.Versions(ctx, camaster.Key)
		if m.roll.take(answers, m.cluster.Registers().Version(camaster.Key)) {
			m.changed()
			pause = rollFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, rollMost)
	}
}
