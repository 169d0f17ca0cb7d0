package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// The targets of detection, from the event to the answers of all nodes.
const (
	maxKillP99 = time.Second // of a dead process
	maxSlow    = 3 * time.Second
)

// How often what is slow by nature is repeated.
const (
	stops = 10
	swaps = 3 // of each kind of bad certificate
	busys = 5
)

// The priorities that the nodes give without a `priority` property.
const (
	localPriority  = 10
	remotePriority = 20
	downPenalty    = 100
)

// detector is two nodes that list hosts, two that list service names, and four
// masters, each of them a process.
type detector struct {
	*bench
	site     *site
	hosts    [2]*node // by datacenter
	services [2]*node
	masters  []*process
	good     []string // certificate files
}

// detect measures how soon the answers follow what happens to a master.
func (b *bench) detect() error {
	b.report.title("from the event to the answers of both nodes, probe interval 1s and timeout 1s (default)")
	d, err := b.newDetector()
	if err != nil {
		return err
	}
	for _, part := range []func() error{d.kills, d.stops, d.certificates, d.busy} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) newDetector() (*detector, error) {
	s, err := b.newSite("detect", 4, 2)
	if err != nil {
		return nil, err
	}
	d := &detector{bench: b, site: s}
	for i, m := range s.masters {
		names := []string{m.service()}
		if i != len(s.masters)-1 { // the last one must never be another's stand-in
			for _, o := range s.masters {
				names = append(names, o.service())
			}
		}
		path, err := s.issue(m.host, s.ca, stub.IssueOptions{CommonName: m.host, DNSNames: names})
		if err != nil {
			return nil, err
		}
		p, err := b.startMaster(s, i, path)
		if err != nil {
			return nil, err
		}
		d.good, d.masters = append(d.good, path), append(d.masters, p)
	}
	address := nodeAddress
	for i := range 2 {
		for _, service := range []bool{false, true} {
			name := fmt.Sprintf("ns%d-targets-host", i+1)
			if service {
				name = fmt.Sprintf("ns%d-targets-service", i+1)
			}
			n, err := b.startNode(s, name, address, nodeOptions{location: i + 1, service: service})
			if err != nil {
				return nil, err
			}
			if service {
				d.services[i] = n
			} else {
				d.hosts[i] = n
			}
			address = address.Next()
		}
	}
	_, err = await(b.ctx, time.Now(), d.every(func(i int) []expectation {
		return append(d.tiers(i, false), d.ownAddress(i)...)
	}))
	return d, err
}

// every joins what f expects of each master.
func (d *detector) every(f func(i int) []expectation) []expectation {
	var all []expectation
	for i := range d.masters {
		all = append(all, f(i)...)
	}
	return all
}

// tiers expects master i at its place on both nodes: the node of datacenter 1 is
// asked for datacenter 1, the other for datacenter 2.
func (d *detector) tiers(i int, down bool) []expectation {
	m := d.site.masters[i]
	return d.ofHosts(func(datacenter int) func(*dns.Msg) bool {
		priority := uint16(remotePriority)
		if m.datacenter == datacenter {
			priority = localPriority
		}
		if down {
			priority += downPenalty
		}
		return listed(m.host+".", priority, down)
	})
}

// notListed expects master i nowhere.
func (d *detector) notListed(i int) []expectation {
	return d.ofHosts(func(int) func(*dns.Msg) bool { return leftOut(d.site.masters[i].host+".", len(d.masters)-1) })
}

func (d *detector) ofHosts(matches func(datacenter int) func(*dns.Msg) bool) []expectation {
	var expected []expectation
	for j, n := range d.hosts {
		expected = append(expected, expectation{n, fmt.Sprintf("_x-puppet._tcp.datacenter%d.%s.", j+1, zoneName), dns.TypeSRV, matches(j + 1)})
	}
	return expected
}

// ownAddress expects the service name of master i at its own address.
func (d *detector) ownAddress(i int) []expectation {
	own := net.IP(d.site.masters[i].address.AsSlice())
	return d.ofServices(i, own.Equal)
}

// standIn expects it at the address of another master, and not of the one whose
// certificate lacks the name.
func (d *detector) standIn(i int) []expectation {
	return d.ofServices(i, func(ip net.IP) bool {
		j := slices.IndexFunc(d.site.masters, func(m master) bool { return ip.Equal(m.address.AsSlice()) })
		return j >= 0 && j != i && j != len(d.masters)-1
	})
}

func (d *detector) ofServices(i int, ok func(net.IP) bool) []expectation {
	var expected []expectation
	for _, n := range d.services {
		expected = append(expected, expectation{n, d.site.masters[i].service() + ".", dns.TypeA, addressed(ok)})
	}
	return expected
}

// times collects, for one kind of event, the time until both nodes followed.
type times []time.Duration

func (t times) String() string {
	return fmt.Sprintf("median %s, p99 %s, max %s", short(median(t)), short(quantile(t, 0.99)), short(slices.Max(t)))
}

// watch waits for what both pairs of nodes should answer and adds the times.
func (d *detector) watch(start time.Time, hosts, services []expectation, hostTimes, serviceTimes *times) error {
	took, err := await(d.ctx, start, append(hosts, services...))
	if err != nil {
		return err
	}
	*hostTimes = append(*hostTimes, slices.Max(took[:len(hosts)]))
	if len(services) > 0 {
		*serviceTimes = append(*serviceTimes, slices.Max(took[len(hosts):]))
	}
	return nil
}

// rest lets the next event fall anywhere between two probes.
func (d *detector) rest() { time.Sleep(rand.N(300 * time.Millisecond)) }

func (d *detector) row(label string, t times, p float64, target time.Duration) {
	what := "max"
	if p < 1 {
		what = fmt.Sprintf("p%.0f", p*100)
	}
	d.report.row(fmt.Sprintf("%s (%d times)", label, len(t)), t.String(), "", what+" < "+target.String(), true, quantile(t, p) < target)
}

// kills ends masters with SIGKILL, one after the other, and starts them again.
func (d *detector) kills() error {
	var down, up, away, home times
	for n := range d.bench.kills {
		i := n % len(d.masters)
		d.rest()
		start := time.Now()
		if err := d.masters[i].signal(syscall.SIGKILL); err != nil {
			return err
		}
		if err := d.watch(start, d.tiers(i, true), d.standIn(i), &down, &away); err != nil {
			return fmt.Errorf("after kill %d: %w", n+1, err)
		}
		<-d.masters[i].exited
		d.rest()
		start = time.Now()
		p, err := d.startMaster(d.site, i, d.good[i])
		if err != nil {
			return err
		}
		d.masters[i] = p
		if err := d.watch(start, d.tiers(i, false), d.ownAddress(i), &up, &home); err != nil {
			return fmt.Errorf("after restart %d: %w", n+1, err)
		}
	}
	d.row("SIGKILL: listed last", down, 0.99, maxKillP99)
	d.row("started again: listed as before", up, 1, maxSlow)
	d.row("SIGKILL, targets service: its name at a stand-in", away, 0.99, maxKillP99)
	d.row("started again: its name at its own address", home, 1, maxSlow)
	return nil
}

// stops stops and continues masters, which then accept connections and say
// nothing.
func (d *detector) stops() error {
	var down, up, away, home times
	for n := range stops {
		i := n % len(d.masters)
		d.rest()
		start := time.Now()
		if err := d.masters[i].signal(syscall.SIGSTOP); err != nil {
			return err
		}
		if err := d.watch(start, d.tiers(i, true), d.standIn(i), &down, &away); err != nil {
			return fmt.Errorf("after SIGSTOP %d: %w", n+1, err)
		}
		d.rest()
		start = time.Now()
		if err := d.masters[i].signal(syscall.SIGCONT); err != nil {
			return err
		}
		if err := d.watch(start, d.tiers(i, false), d.ownAddress(i), &up, &home); err != nil {
			return fmt.Errorf("after SIGCONT %d: %w", n+1, err)
		}
	}
	d.row("SIGSTOP: listed last", down, 1, maxSlow)
	d.row("SIGCONT: listed as before", up, 1, maxSlow)
	d.row("SIGSTOP, targets service: its name at a stand-in", away, 1, maxSlow)
	d.row("SIGCONT: its name at its own address", home, 1, maxSlow)
	return nil
}

// certificates swaps a master's certificate for one that would make an agent
// abort, and back.
func (d *detector) certificates() error {
	foreign, err := stub.NewCA("Puppet CA: elsewhere." + zoneName)
	if err != nil {
		return err
	}
	var back times
	for _, kind := range []struct {
		name    string
		ca      *stub.CA
		options func(host string) stub.IssueOptions
	}{
		{"wrong name", d.site.ca, func(string) stub.IssueOptions { return stub.IssueOptions{CommonName: "other." + zoneName} }},
		{"expired", d.site.ca, func(host string) stub.IssueOptions {
			return stub.IssueOptions{CommonName: host, NotAfter: time.Now().Add(-time.Minute)}
		}},
		{"foreign CA", foreign, func(host string) stub.IssueOptions { return stub.IssueOptions{CommonName: host} }},
	} {
		var out times
		for n := range swaps {
			i := n % len(d.masters)
			bad, err := d.site.issue("bad", kind.ca, kind.options(d.site.masters[i].host))
			if err != nil {
				return err
			}
			d.rest()
			if err := d.swap(i, "certificate "+bad, d.notListed(i), &out); err != nil {
				return fmt.Errorf("certificate of kind %q: %w", kind.name, err)
			}
			d.rest()
			if err := d.swap(i, "certificate "+d.good[i], d.tiers(i, false), &back); err != nil {
				return fmt.Errorf("the good certificate after kind %q: %w", kind.name, err)
			}
		}
		d.row("certificate, "+kind.name+": not listed", out, 1, maxSlow)
	}
	d.row("good certificate again: listed as before", back, 1, maxSlow)
	return nil
}

// busy has a master say 503, as puppetserver does while it starts.
func (d *detector) busy() error {
	var down, up times
	for n := range busys {
		i := n % len(d.masters)
		d.rest()
		if err := d.swap(i, "status 503 starting", d.tiers(i, true), &down); err != nil {
			return fmt.Errorf("after 503: %w", err)
		}
		d.rest()
		if err := d.swap(i, "status 200 running", d.tiers(i, false), &up); err != nil {
			return fmt.Errorf("after 200: %w", err)
		}
	}
	d.row("status 503: listed last", down, 1, maxSlow)
	d.row("status 200 again: listed as before", up, 1, maxSlow)
	return nil
}

// swap tells master i something and waits for what follows.
func (d *detector) swap(i int, command string, expected []expectation, t *times) error {
	start := time.Now()
	if err := d.masters[i].tell("%s", command); err != nil {
		return err
	}
	return d.watch(start, expected, nil, t, nil)
}
