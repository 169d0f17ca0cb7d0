package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

const zoneName = "example.net"

// The addresses of this program's servers; nothing else of this project uses
// them. Nodes count up from the first, masters from the second.
var (
	nodeAddress   = netip.AddrFrom4([4]byte{127, 3, 2, 1})
	masterAddress = netip.AddrFrom4([4]byte{127, 3, 16, 1})
)

// camasterName is the CNAME.
const camasterName = "puppet-camaster." + zoneName + "."

// site is a layout of masters and what the nodes are told of it. Its files
// stand in a directory of its own.
type site struct {
	dir         string
	ca          *stub.CA
	datacenters int
	masters     []master
	port        uint16 // of every master
	dualStack   bool   // each master has an AAAA record too
}

type master struct {
	host       string // without the final dot
	datacenter int    // from 1
	address    netip.Addr
}

// service is the name under which `targets service` lists a master.
func (m master) service() string {
	first, _, _ := strings.Cut(m.host, ".")
	return fmt.Sprintf("%s.datacenter%d.%s", first, m.datacenter, zoneName)
}

// newSite lays masters out evenly, in the order of the datacenters: with 4 in 2
// as in the playground.
func (b *bench) newSite(name string, masters, datacenters int) (*site, error) {
	s := &site{dir: filepath.Join(b.dir, name), datacenters: datacenters}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if s.ca, err = stub.NewCA("Puppet CA: m1." + zoneName); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "ca.pem"), s.ca.PEM(), 0o644); err != nil {
		return nil, err
	}
	address := masterAddress
	for i := range masters {
		s.masters = append(s.masters, master{
			host:       fmt.Sprintf("m%d.%s", i+1, zoneName),
			datacenter: i*datacenters/masters + 1,
			address:    address,
		})
		address = address.Next()
	}
	s.port, err = freePort(masterAddress)
	return s, err
}

// node is a running server and where it is asked.
type node struct {
	*process
	dns, metrics, pprof netip.AddrPort
	ready               netip.AddrPort
	corefile            string
}

// nodeOptions are how one node differs from another.
type nodeOptions struct {
	location int    // datacenter, from 1
	service  bool   // targets service
	probeOff bool   // verdicts stay up
	probe    string // arguments of probe; "": the defaults
	file     string // not this plugin but CoreDNS's file serves, with this zone file
	ttl      int    // 0: the default
	bare     bool   // nothing but prometheus in the chain
	member   *member
	env      []string
}

func (s *site) zonefile() string {
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN %s.\n$TTL 60\n@ SOA ns1 hostmaster 1 3600 600 604800 5\n@ NS ns1\n@ NS ns2\nns1 A %v\nns2 A %v\n",
		zoneName, nodeAddress, nodeAddress.Next())
	for _, m := range s.masters {
		fmt.Fprintf(&b, "%s. A %v\n", m.host, m.address)
		if s.dualStack {
			a := m.address.As4()
			fmt.Fprintf(&b, "%s. AAAA 2001:db8::%x%02x\n", m.host, a[2], a[3])
		}
	}
	return b.String()
}

// state is the directory of a node's durable state.
func (s *site) state(n *node) string { return filepath.Join(s.dir, "state-"+n.name) }

// write makes the node's Corefile. prometheus stands in every one of them,
// because that is how servers are run.
func (s *site) write(n *node, o nodeOptions) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d {\n    bind %v\n    prometheus %v\n    ready %v\n    pprof %v\n", zoneName, n.dns.Port(), n.dns.Addr(), n.metrics, n.ready, n.pprof)
	if !o.bare {
		b.WriteString("    errors\n    transfer {\n        to *\n    }\n")
	}
	if o.file != "" {
		fmt.Fprintf(&b, "    file %s\n}\n", o.file)
		return os.WriteFile(n.corefile, []byte(b.String()), 0o644)
	}
	zonefile := filepath.Join(s.dir, zoneName+".zone")
	if err := os.WriteFile(zonefile, []byte(s.zonefile()), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(&b, "    puppetsrv {\n        zonefile %s\n", zonefile)
	for i := range s.datacenters {
		fmt.Fprintf(&b, "        datacenter datacenter%d\n", i+1)
	}
	for i, m := range s.masters {
		ca := ""
		if i%2 == 0 {
			ca = " ca"
		}
		fmt.Fprintf(&b, "        master %s datacenter%d port %d%s\n", m.host, m.datacenter, s.port, ca)
	}
	fmt.Fprintf(&b, "        camaster puppet-camaster %s\n        location datacenter%d\n", s.masters[0].host, max(o.location, 1))
	if o.service {
		b.WriteString("        targets service\n")
	}
	if o.ttl > 0 {
		fmt.Fprintf(&b, "        ttl %d\n", o.ttl)
	}
	if o.probe != "" {
		fmt.Fprintf(&b, "        probe %s\n", o.probe)
	}
	if o.probeOff {
		b.WriteString("        probe off\n")
	}
	if o.member != nil {
		b.WriteString(o.member.properties())
	} else if !o.probeOff {
		fmt.Fprintf(&b, "        tls %s\n", filepath.Join(s.dir, "ca.pem"))
	}
	fmt.Fprintf(&b, "        state %s\n    }\n}\n", s.state(n))
	return os.WriteFile(n.corefile, []byte(b.String()), 0o644)
}

// startNode starts a server at the given address and waits until it is ready:
// with probes, until every master was looked at once.
func (b *bench) startNode(s *site, name string, address netip.Addr, o nodeOptions) (*node, error) {
	n := &node{process: &process{name: name}, corefile: filepath.Join(s.dir, name+".Corefile")}
	var taken []uint16
	if o.member != nil {
		taken = []uint16{o.member.gossip.Port(), o.member.api.Port()}
	}
	for _, at := range []*netip.AddrPort{&n.dns, &n.metrics, &n.ready, &n.pprof} {
		for at.Port() == 0 || slices.Contains(taken, at.Port()) {
			port, err := freePort(address)
			if err != nil {
				return nil, err
			}
			*at = netip.AddrPortFrom(address, port)
		}
		taken = append(taken, at.Port())
	}
	if err := s.write(n, o); err != nil {
		return nil, fmt.Errorf("writing the configuration of %s: %w", name, err)
	}
	p, err := b.start(name, o.env, b.binary, "-conf", n.corefile)
	if err != nil {
		return nil, err
	}
	n.process = p
	return n, n.await(b.ctx)
}

// await waits until the node is ready.
func (n *node) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if err := n.alive(); err != nil {
			return err
		}
		_, err := fetch(ctx, "http://"+n.ready.String()+"/ready")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %v: %w", n.name, patience, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// fetch gets a page over HTTP; anything but 200 is an error.
func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	page, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", url, err)
	}
	return page, nil
}

// ask sends one question, with EDNS0 so that everything fits.
func ask(ctx context.Context, server netip.AddrPort, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.SetEdns0(dns.MaxMsgSize-1, false)
	c := dns.Client{Timeout: 2 * time.Second}
	a, _, err := c.ExchangeContext(ctx, q, server.String())
	if err != nil {
		return nil, fmt.Errorf("asking %v for %s %s: %w", server, name, dns.TypeToString[qtype], err)
	}
	return a, nil
}

// startStubs starts every master of the site in this process.
func (s *site) startStubs() ([]*stub.Master, error) {
	var masters []*stub.Master
	for i := range s.masters {
		m, err := s.startStub(i)
		if err != nil {
			for _, m := range masters {
				m.Close()
			}
			return nil, err
		}
		masters = append(masters, m)
	}
	return masters, nil
}

func (s *site) startStub(i int) (*stub.Master, error) {
	m := s.masters[i]
	id, err := s.ca.Issue(stub.IssueOptions{CommonName: m.host})
	if err != nil {
		return nil, err
	}
	return stub.NewMaster(fmt.Sprintf("%v:%d", m.address, s.port), id)
}
