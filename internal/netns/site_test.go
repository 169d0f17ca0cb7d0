//go:build linux

package netns_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/netns"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// site is two datacenters: ns1, m1 and m2 in datacenter1, ns2, m3 and m4 in
// datacenter2, each a process on a host of its own. m1 is the configured camaster, those
// of capable may become it. Agents ask from m1 and m3.
type site struct {
	t       *testing.T
	net     *netns.Net
	dir     string // with a short path, for sockets
	profile string
	ca      *stub.CA
	capable []string
	hosts   map[string]*netns.Host
	nodes   map[string]*node
	// programs are the last ones of each name.
	programs map[string]*program
	explain  func() // says more where something is waited for in vain; nil: nothing
	// strangers are members that came and died: the nodes show them for a day.
	strangers []string
}

// node is a puppetsrv that may run.
type node struct {
	*program
	name       string // of its files
	host       *netns.Host
	datacenter string
	corefile   corefile
	client     *admin.Client
	status     admin.Status // of asked
	asked      time.Time
}

// corefile is what is particular about a node's.
type corefile struct {
	node string // its name in the cluster
	cert string // whose certificate it has
	ring string // its gossip key file
	sign string // more who may sign, in its own eyes
}

// newSite prepares everything and starts the masters.
func newSite(t *testing.T, profile string) *site {
	t.Helper()
	s := prepareSite(t, profile, "m1", "m2", "m3")
	for _, name := range []string{"m1", "m2", "m3", "m4"} {
		s.startMaster(name)
	}
	return s
}

// prepareSite makes hosts and files, and starts nothing.
func prepareSite(t *testing.T, profile string, capable ...string) *site {
	t.Helper()
	s := &site{t: t, net: netns.New(t), profile: profile, capable: capable, hosts: make(map[string]*netns.Host), nodes: make(map[string]*node), programs: make(map[string]*program)}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "netns")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.dir = dir
	for name, address := range map[string]string{
		"ns1": "10.1.0.1", "m1": "10.1.0.11", "m2": "10.1.0.12",
		"ns2": "10.2.0.1", "m3": "10.2.0.13", "m4": "10.2.0.14",
	} {
		s.addHost(name, address)
	}
	if s.ca, err = stub.NewCA("Puppet CA: m1.example.net"); err != nil {
		t.Fatal(err)
	}
	s.write("ca.pem", s.ca.PEM())
	crl, err := s.ca.CRL()
	if err != nil {
		t.Fatal(err)
	}
	s.write("crl.pem", crl)
	for _, name := range []string{"ns1", "ns2", "ns3", "m1", "m2", "m3", "m4", "operator"} {
		s.issue(name)
	}
	s.write("gossip.key", newKey(t))
	var zone strings.Builder
	zone.WriteString("$ORIGIN example.net.\n$TTL 60\n@ IN SOA ns1.example.net. hostmaster.example.net. 1 3600 600 604800 5\n@ IN NS ns1.example.net.\n@ IN NS ns2.example.net.\n")
	for name, h := range s.hosts {
		fmt.Fprintf(&zone, "%s IN A %s\n", name, h.Addr)
	}
	s.write("example.net.zone", []byte(zone.String()))
	for i, datacenter := range []string{"datacenter1", "datacenter2"} {
		name := fmt.Sprintf("ns%d", i+1)
		s.addNode(name, s.hosts[name], datacenter, corefile{node: name + ".example.net", cert: name, ring: "gossip.key"})
	}
	return s
}

func (s *site) addHost(name, address string) *netns.Host {
	s.t.Helper()
	h := s.net.Host(name+".example.net", address)
	s.hosts[name] = h
	return h
}

// addNode makes the files of a node.
func (s *site) addNode(name string, host *netns.Host, datacenter string, c corefile) *node {
	s.t.Helper()
	n := &node{name: name, host: host, datacenter: datacenter, corefile: c}
	client, err := admin.NewClient(n.socket(s), admin.ClientOptions{Timeout: patience})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	n.client = client
	if err := os.MkdirAll(s.path(name), 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.nodes[name] = n
	return n
}

func (n *node) socket(s *site) string { return "unix://" + s.path(n.name, "s") }

// start starts a node with the state that it has.
func (s *site) start(n *node) {
	s.t.Helper()
	c := n.corefile
	var masters strings.Builder
	for i, datacenter := range []string{"datacenter1", "datacenter1", "datacenter2", "datacenter2"} {
		name := fmt.Sprintf("m%d", i+1)
		fmt.Fprintf(&masters, "        master      %s.example.net %s", name, datacenter)
		if slices.Contains(s.capable, name) {
			masters.WriteString(" ca")
		}
		masters.WriteString("\n")
	}
	s.write(n.name+"/Corefile", fmt.Appendf(nil, `example.net:53 {
    bind %[1]s
    puppetsrv {
        zonefile    %[2]s/example.net.zone
        datacenter  datacenter1
        datacenter  datacenter2
%[10]s        camaster    puppet-camaster m1.example.net
        tls         %[2]s/%[3]s.pem %[2]s/%[3]s.key %[2]s/ca.pem
        crl         %[2]s/crl.pem
        state       %[2]s/%[4]s/state
        node        %[5]s
        location    %[6]s
        gossip      %[1]s join ns1.example.net ns2.example.net key %[2]s/%[7]s profile %[8]s
        admin       unix://%[2]s/%[4]s/s https://%[1]s:8153
        admin_allow read *
        admin_allow write operator.example.net
        %[9]s
    }
    prometheus %[1]s:9153
    errors
}
`, n.host.Addr, s.dir, c.cert, n.name, c.node, n.datacenter, c.ring, s.profile, c.sign, masters.String()))
	n.program = s.run(n.name, n.host.Command(filepath.Join(bin, "puppetsrv"), "-conf", s.path(n.name, "Corefile")))
}

// startMaster starts a stub master, with more arguments for what it has of a CA.
func (s *site) startMaster(name string, more ...string) {
	s.t.Helper()
	h := s.hosts[name]
	args := []string{"-listen", h.Addr.String() + ":8140", "-cert", s.path(name + ".pem"), "-key", s.path(name + ".key")}
	cmd := h.Command(os.Args[0], append(args, more...)...)
	cmd.Env = append(environ(), roleVariable+"=master")
	s.run(name, cmd).says("serving")
}

// up starts both nodes and waits until everything is well.
func (s *site) up() {
	s.t.Helper()
	s.start(s.nodes["ns1"])
	s.start(s.nodes["ns2"])
	s.until(s.well(), patience)
}

// cut cuts the link between the datacenters.
func (s *site) cut() {
	s.t.Helper()
	s.net.Cut(s.datacenter("ns1", "m1", "m2"), s.datacenter("ns2", "m3", "m4"))
}

func (s *site) datacenter(names ...string) (all []*netns.Host) {
	for _, name := range names {
		all = append(all, s.hosts[name])
	}
	return all
}

// issue makes NAME.pem and NAME.key. The certificate of a master that may become the
// camaster has that one's name too, and may revoke.
func (s *site) issue(name string) {
	s.t.Helper()
	options := stub.IssueOptions{CommonName: name + ".example.net"}
	if slices.Contains(s.capable, name) {
		options.DNSNames, options.CLIAuth = []string{"puppet-camaster.example.net"}, true
	}
	id, err := s.ca.Issue(options)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name+".pem", id.CertPEM)
	s.write(name+".key", id.KeyPEM)
}

func newKey(t *testing.T) []byte {
	t.Helper()
	key, err := gossip.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(base64.StdEncoding.EncodeToString(key) + "\n")
}

func (s *site) path(elements ...string) string {
	return filepath.Join(append([]string{s.dir}, elements...)...)
}

func (s *site) write(name string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}
