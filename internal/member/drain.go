package member

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/procfs"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// DrainRequest is an operator's, or a unit's, before a restart of puppetserver.
type DrainRequest struct {
	Reason string `json:"reason"`
	// For is how long it holds, in seconds; 0: until it is undrained, or the member ends.
	For float64 `json:"for,omitempty"`
	// Wait has it return when every living node knows, their answers have expired from
	// caches, and no agent is connected any more; within Patience.
	Wait     bool    `json:"wait,omitempty"`
	Settle   float64 `json:"settle,omitempty"`   // seconds for caches: the zone's ttl and a little
	Patience float64 `json:"patience,omitempty"` // seconds
}

// DrainResult is what came of it. With Idle false it is said what is still going on.
type DrainResult struct {
	Idle   bool   `json:"idle"`
	Detail string `json:"detail"`
}

// quiet is how long no agent has to be connected before nobody is taken to be. An
// agent keeps an idle connection for four seconds (http_keepalive_timeout), and
// connects anew for what comes next.
const quiet = 5 * time.Second

// drain makes this host's wish known.
func (m *Member) drain(ctx context.Context, r DrainRequest) (DrainResult, error) {
	if strings.TrimSpace(r.Reason) == "" || len(r.Reason) > 500 || strings.ContainsFunc(r.Reason, unicode.IsControl) {
		return DrainResult{}, fmt.Errorf("a reason is needed, in one line of 1 to 500 bytes: it is shown by `puppetsrvctl masters`")
	}
	d := &evidence.Drain{Reason: r.Reason, Since: time.Now().UTC().Truncate(time.Second)}
	if r.For > 0 {
		d.Until = time.Now().Add(seconds(r.For)).UTC()
	}
	m.setDrain(d)
	if !r.Wait {
		return DrainResult{Detail: "drained"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, seconds(r.Patience))
	defer cancel()
	for {
		missing := m.cluster.Delivered(ctx)
		if len(missing) == 0 {
			break
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return DrainResult{Detail: "not heard by " + strings.Join(missing, ", ")}, nil
		}
	}
	if !sleep(ctx, seconds(r.Settle)) {
		return DrainResult{Detail: "answers from before may still be in caches"}, nil
	}
	idle := time.Now()
	for {
		n, err := m.connected()
		switch {
		case err != nil:
			return DrainResult{}, fmt.Errorf("counting the connections of agents: %w", err)
		case n > 0:
			idle = time.Now()
		case time.Since(idle) >= quiet:
			return DrainResult{Idle: true, Detail: "every node knows, and no agent is connected"}, nil
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return DrainResult{Detail: fmt.Sprintf("%d connections are still open", n)}, nil
		}
	}
}

// setDrain changes the wish and tells it at once; nil ends it.
func (m *Member) setDrain(d *evidence.Drain) {
	m.mu.Lock()
	m.drained = d
	m.mu.Unlock()
	if d != nil {
		m.log.Infof("Drain: %s", d.Reason)
	} else {
		m.log.Infof("Drain: ended")
	}
	m.publish()
}

// connected counts the connections to puppetserver of others than the nodes, whose
// probes keep theirs, and this host itself.
func (m *Member) connected() (int, error) {
	fs, err := procfs.NewFS("/proc/self")
	if err != nil {
		return 0, err
	}
	//lint:ignore SA1019 slow with very many sockets, and read a few times in a drain only
	v4, err := fs.NetTCP()
	if err != nil {
		return 0, err
	}
	//lint:ignore SA1019 as above
	v6, err := fs.NetTCP6() // a kernel without IPv6 has no such file
	if err != nil {
		v6 = nil
	}
	own := m.cluster.Name()
	members, others := make(map[netip.Addr]bool), make(map[netip.Addr]bool)
	for _, p := range m.cluster.Peers() {
		if a := p.Address.Addr().Unmap(); a.IsValid() {
			members[a] = true
			others[a] = others[a] || p.Name != own
		}
	}
	const established = 1 // TCP_ESTABLISHED, net/tcp_states.h
	n := 0
	for _, c := range append(v4, v6...) {
		local, remote := addr(c.LocalAddr), addr(c.RemAddr)
		// What comes from this host is no agent's: the member looks at its puppetserver too.
		// Where masters share a host, as in a playground, each has its own address.
		if remote.IsLoopback() {
			continue
		}
		if c.St == established && c.LocalPort == uint64(m.settings().Port) && local != remote && !members[remote] && !others[local] {
			n++
		}
	}
	return n, nil
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// sleep reports whether it slept for d, and not until ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
