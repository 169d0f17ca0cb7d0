package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxCPURatio is what an SRV answer may cost at most, against file's.
const maxCPURatio = 0.6

// loadTime is the length of one measurement. A round has two: one of each
// server, one after the other. It is short, so that what else the machine does
// meets both, and long against a tick of the kernel's clock.
const loadTime = 150 * time.Millisecond

// minAnswers is how many a measurement is worth having with; a machine that
// is stopped for a while gives fewer.
const minAnswers = 100

var errTooFew = errors.New("too few answers")

// A resolver that forwards agents' questions says this size (RFC 9715 and
// dnsflagday.net/2020); agents themselves say none.
const resolverSize = 1232

// cpuQuestion is one row of the table.
type cpuQuestion struct {
	label string
	name  string
	qtype uint16
	size  uint16
	rcode int
	must  bool // has a target
}

// cpu compares this plugin with file, which serves the very same records.
func (b *bench) cpu() error {
	b.report.title("server CPU per answered query (and answers per second), GOMAXPROCS=1, against CoreDNS file")
	srv := "_x-puppet._tcp.datacenter1." + zoneName + "."
	err := b.cpuSite("cpu", false, false, []cpuQuestion{
		{"SRV, 4 masters with A", srv, dns.TypeSRV, resolverSize, dns.RcodeSuccess, true},
		{"SRV, 4 masters with A, no EDNS0", srv, dns.TypeSRV, 0, dns.RcodeSuccess, false},
		{"A of a master", "m1." + zoneName + ".", dns.TypeA, resolverSize, dns.RcodeSuccess, false},
		{"A through the camaster CNAME", camasterName, dns.TypeA, resolverSize, dns.RcodeSuccess, false},
		{"NXDOMAIN", "no-such-name." + zoneName + ".", dns.TypeA, resolverSize, dns.RcodeNameError, false},
	})
	if err != nil {
		return err
	}
	err = b.cpuSite("cpu-dual", true, false, []cpuQuestion{
		{"SRV, 4 masters with A and AAAA", srv, dns.TypeSRV, resolverSize, dns.RcodeSuccess, true},
	})
	if err != nil {
		return err
	}
	// Each further plugin costs both the same, and the goroutine's stack is copied
	// once more.
	return b.cpuSite("cpu-chain", false, true, []cpuQuestion{
		{"SRV, 4 masters with A, errors and transfer too", srv, dns.TypeSRV, resolverSize, dns.RcodeSuccess, false},
	})
}

// cpuSite measures the questions on one site, with prometheus alone in the chain
// or with others.
func (b *bench) cpuSite(name string, dualStack, others bool, questions []cpuQuestion) error {
	s, err := b.newSite(name, 4, 2)
	if err != nil {
		return err
	}
	s.dualStack = dualStack
	// The AAAA addresses are documentation's: nothing must be sent to them.
	probeOff := dualStack
	if !probeOff {
		masters, err := s.startStubs()
		if err != nil {
			return err
		}
		defer func() {
			for _, m := range masters {
				m.Close()
			}
		}()
	}
	one := []string{"GOMAXPROCS=1"}
	zonefile := filepath.Join(s.dir, "transferred.zone")
	if err := b.renderedZone(s, name, zonefile, probeOff); err != nil {
		return err
	}
	ours, err := b.startNode(s, name+"-puppetsrv", nodeAddress, nodeOptions{probeOff: probeOff, bare: !others, env: one})
	if err != nil {
		return err
	}
	defer ours.end()
	against, err := b.startNode(s, name+"-file", nodeAddress.Next(), nodeOptions{file: zonefile, bare: !others, env: one})
	if err != nil {
		return err
	}
	defer against.end()

	// This program has a core of its own, as far as there are two, and leaves
	// the other to the server.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, q := range questions {
		if err := b.sameAnswer(ours, against, q); err != nil {
			return err
		}
		rounds := b.rounds
		if !q.must {
			rounds = (rounds + 2) / 3
		}
		if err := b.cpuRow(ours, against, q, rounds); err != nil {
			return err
		}
	}
	return nil
}

// renderedZone writes the records that this plugin serves as a zone file.
func (b *bench) renderedZone(s *site, name, path string, probeOff bool) error {
	n, err := b.startNode(s, name+"-source", nodeAddress, nodeOptions{probeOff: probeOff})
	if err != nil {
		return err
	}
	defer n.end()
	return transferZone(n, path)
}

// cost is one measurement.
type cost struct {
	perQuery  float64 // µs of the server's CPU
	perSecond float64
}

func (b *bench) measure(n *node, q cpuQuestion) (cost, error) {
	question, err := pack(q.name, q.qtype, q.size)
	if err != nil {
		return cost{}, err
	}
	before, err := n.cpuTime()
	if err != nil {
		return cost{}, err
	}
	r, err := closedLoop(b.ctx, n.dns, question, q.rcode, loadTime)
	if err != nil {
		return cost{}, err
	}
	after, err := n.cpuTime()
	if err != nil {
		return cost{}, err
	}
	if r.answered < minAnswers {
		return cost{}, errTooFew
	}
	return cost{
		perQuery:  float64((after - before).Nanoseconds()) / 1e3 / float64(r.answered),
		perSecond: float64(r.answered) / r.elapsed.Seconds(),
	}, nil
}

// cpuRow measures one question in rounds. The ratio is the median of the
// rounds' own ratios.
func (b *bench) cpuRow(ours, against *node, q cpuQuestion, rounds int) error {
	wait := b.profiled(q.label, time.Duration(rounds)*loadTime*2, ours, against)
	var ratios, ourCost, ourSpeed, againstCost, againstSpeed []float64
	for tries := 0; len(ratios) < rounds; tries++ {
		var y cost
		x, err := b.measure(ours, q)
		if err == nil {
			y, err = b.measure(against, q)
		}
		if tries < 2 || errors.Is(err, errTooFew) && tries < 2*rounds+2 {
			continue // caches, heap and CPU clock warm up
		}
		if err != nil {
			return fmt.Errorf("%s: %w", q.label, err)
		}
		ratios = append(ratios, x.perQuery/y.perQuery)
		ourCost, ourSpeed = append(ourCost, x.perQuery), append(ourSpeed, x.perSecond)
		againstCost, againstSpeed = append(againstCost, y.perQuery), append(againstSpeed, y.perSecond)
	}
	ratio := median(ratios)
	target := ""
	if q.must {
		target = fmt.Sprintf(" (at most %.2f)", maxCPURatio)
	}
	cell := func(cost, speed []float64) string {
		return fmt.Sprintf("%.1f µs (%.0f k/s)", median(cost), median(speed)/1e3)
	}
	b.report.row(q.label, cell(ourCost, ourSpeed), cell(againstCost, againstSpeed),
		fmt.Sprintf("%.2f%s, half of %d rounds %.2f to %.2f", ratio, target, rounds, quantile(ratios, 0.25), quantile(ratios, 0.75)), q.must, ratio <= maxCPURatio)
	return wait()
}

// profiled starts CPU profiles of the nodes if that is asked for; what it
// returns waits for them.
func (b *bench) profiled(label string, d time.Duration, nodes ...*node) (wait func() error) {
	if !b.profile {
		return func() error { return nil }
	}
	errs := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() {
			page, err := fetch(b.ctx, fmt.Sprintf("http://%v/debug/pprof/profile?seconds=%d", n.pprof, max(int(d.Seconds()), 1)))
			if err == nil {
				err = os.WriteFile(filepath.Join(b.dir, n.name+"-"+strings.ReplaceAll(label, " ", "-")+".pprof"), page, 0o644)
			}
			errs <- err
		}()
	}
	return func() error {
		for range nodes {
			if err := <-errs; err != nil {
				return fmt.Errorf("profiling: %w", err)
			}
		}
		return nil
	}
}

// transferZone writes the zone that a node serves into a zone file.
func transferZone(n *node, path string) error {
	q := new(dns.Msg)
	q.SetAxfr(zoneName + ".")
	envelopes, err := new(dns.Transfer).In(q, n.dns.String())
	if err != nil {
		return fmt.Errorf("transferring the zone: %w", err)
	}
	var text bytes.Buffer
	count := 0
	for e := range envelopes {
		if e.Error != nil {
			return fmt.Errorf("transferring the zone: %w", e.Error)
		}
		for _, rr := range e.RR {
			if _, soa := rr.(*dns.SOA); soa && count > 0 {
				continue // a transfer ends as it begins
			}
			fmt.Fprintln(&text, rr)
			count++
		}
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}

// sameAnswer makes sure that like is compared with like.
func (b *bench) sameAnswer(ours, against *node, q cpuQuestion) error {
	var said [2]string
	for i, n := range []*node{ours, against} {
		m, err := ask(b.ctx, n.dns, q.name, q.qtype)
		if err != nil {
			return err
		}
		lines := []string{fmt.Sprintf("rcode %d, AA %v, TC %v", m.Rcode, m.Authoritative, m.Truncated)}
		for j, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
			for _, rr := range section {
				if rr.Header().Rrtype != dns.TypeOPT {
					lines = append(lines, fmt.Sprintf("%d %v", j, rr))
				}
			}
		}
		slices.Sort(lines)
		said[i] = strings.Join(lines, "\n")
	}
	if said[0] != said[1] {
		return fmt.Errorf("%s: the servers do not answer the same: puppetsrv\n%s\nfile\n%s", q.label, said[0], said[1])
	}
	return nil
}
