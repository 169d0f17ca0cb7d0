// Package puppetsrv is a CoreDNS plugin that writes the SRV records Puppet agents
// look for, and the CNAME of the camaster, from the health of the masters.
//
// The failure modes it exists for: a dead master costs every agent of its
// datacenter a connection time-out per service and run; a lost datacenter costs
// the CA; and one SERVFAIL makes an agent fall back silently to `server`. So this
// package answers at any time after setup, from an immutable snapshot: it never
// locks, waits or fails inside its zones. It must stay embeddable: it imports
// neither plugin/metrics nor coremain.
package puppetsrv

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/plugin/pkg/fall"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/node"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

const pluginName = "puppetsrv"

var log = clog.NewWithPlugin(pluginName)

var (
	_ plugin.Handler    = (*Puppetsrv)(nil)
	_ metadata.Provider = (*Puppetsrv)(nil)
)

// Puppetsrv serves its zones. Its methods are safe for concurrent use once set up.
type Puppetsrv struct {
	Next plugin.Handler
	// Fall says for which names that do not exist the next plugin is asked.
	Fall fall.F

	zones []string
	// node is nil until OnStartup. Before, configured answers: everything up.
	node       atomic.Pointer[node.Node]
	configured func() *zone.Snapshot
	counts     counts
}

func newPuppetsrv(cfg *config) *Puppetsrv {
	plan := cfg.node.Plan
	return &Puppetsrv{
		Fall:  cfg.fall,
		zones: cfg.zones,
		configured: sync.OnceValue(func() *zone.Snapshot { // for who serves without starting
			serials := make(map[string]uint32)
			for _, origin := range plan.Origins() {
				serials[origin] = plan.FileSerial(origin)
			}
			return plan.Render(plan.NewView(time.Now())).Snapshot(serials)
		}),
	}
}

// Name implements plugin.Handler.
func (p *Puppetsrv) Name() string { return pluginName }

func (p *Puppetsrv) snapshot() *zone.Snapshot {
	if n := p.node.Load(); n != nil {
		return n.Snapshot()
	}
	return p.configured()
}

// ServeDNS implements plugin.Handler. What agents ask for is answered from
// prebuilt records, everything else in the zones by plugin/file.
//
// It has as little as can be on its stack. The server has a new goroutine for
// every question, and its stack is copied when it grows past 2 and 4 KiB, which
// costs more than all that is done here. With prometheus alone ahead of it an
// answer stays below 4 KiB; what is done before writing is therefore not inlined.
func (p *Puppetsrv) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := p.prebuilt(ctx, w, r)
	if m == nil {
		return p.static(ctx, w, r)
	}
	// An error is the client's or the socket's: there is nobody to tell.
	_ = w.WriteMsg(m)
	return dns.RcodeSuccess, nil
}

// prebuilt returns the prebuilt answer to r, cut to what the client can take, or
// nil if there is none.
//
//go:noinline
func (p *Puppetsrv) prebuilt(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) *dns.Msg {
	if r.Opcode != dns.OpcodeQuery || len(r.Question) != 1 || r.Question[0].Qclass != dns.ClassINET {
		return nil
	}
	q := &r.Question[0]
	name := strings.ToLower(q.Name) // as unpacked: prebuilt names have no escapes
	a := p.snapshot().Answer(name, q.Qtype)
	if a == nil {
		return nil
	}
	state := request.Request{W: w, Req: r}
	room := state.Size()
	if o := r.IsEdns0(); o != nil {
		room -= dns.Len(o) // comes back in the answer
	}
	if name != q.Name {
		// Names are compressed by their letters: with a question in mixed case
		// (draft-vixie-dnsext-dns0x20) the owner is written once more.
		room -= len(name) + 1
	}
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	var cut bool
	m.Answer, m.Ns, m.Extra, cut = a.Fit(room)
	p.counts.prebuilt(ctx, a.Kind, cut)
	return m
}

// static answers by plugin/file, or passes on what is in no zone here.
//
//go:noinline
func (p *Puppetsrv) static(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	z := p.snapshot().Match(state.Name())
	if z == nil {
		return plugin.NextOrFailure(p.Name(), p.Next, ctx, w, r)
	}
	if r.Opcode == dns.OpcodeNotify { // file logs every one of them
		m := new(dns.Msg)
		m.SetRcode(r, dns.RcodeNotAuth) // no secondary of anybody (RFC 1996, section 3.10)
		_ = w.WriteMsg(m)
		return dns.RcodeNotAuth, nil
	}
	// The parent side of a zone cut answers for DS (RFC 4035, section 3.1.4.1).
	if state.QType() == dns.TypeDS && state.Name() == z.Origin && z.Parent != nil {
		z = z.Parent
	}
	p.counts.static(ctx)
	f := file.File{Next: p.Next, Fall: p.Fall, ZoneLookupFunc: func(string) (string, *file.Zone, bool) {
		return z.Origin, z.File, true
	}}
	return f.ServeDNS(ctx, clipped{w}, r)
}

// clipped gives the sections of a message no room to grow. plugin/file hands out
// slices of the zone itself, and a plugin that appends to them, as dnssec does
// with its signatures, would write into the zone of everyone.
type clipped struct{ dns.ResponseWriter }

// WriteMsg implements dns.ResponseWriter.
func (w clipped) WriteMsg(m *dns.Msg) error {
	m.Answer, m.Ns, m.Extra = slices.Clip(m.Answer), slices.Clip(m.Ns), slices.Clip(m.Extra)
	return w.ResponseWriter.WriteMsg(m)
}

// CacheBypassZones implements cache.ZoneBypasser: a cached answer would outlive
// a verdict.
func (p *Puppetsrv) CacheBypassZones() []string { return p.zones }

// Metadata implements metadata.Provider: puppetsrv/datacenter is the one whose
// domain the question's name is in.
func (p *Puppetsrv) Metadata(ctx context.Context, state request.Request) context.Context {
	snap := p.snapshot()
	z := snap.Match(state.Name())
	if z == nil {
		return ctx
	}
	metadata.SetValueFunc(ctx, "puppetsrv/datacenter", func() string { return snap.Datacenter(state.Name()) })
	metadata.SetValueFunc(ctx, "puppetsrv/camaster", func() string { return snap.Camaster })
	metadata.SetValueFunc(ctx, "puppetsrv/serial", func() string { return strconv.FormatUint(uint64(z.Serial), 10) })
	return ctx
}
