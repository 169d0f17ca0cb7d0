//go:build linux

package stack

import (
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/netns"
)

// Domain is the zone of all hosts' names.
const Domain = "example.net"

// Camaster is the CNAME.
const Camaster = "puppet-camaster." + Domain

// Stack is the hosts with what they share. Its methods may be called from any goroutine,
// but for those that cut, heal or make hosts.
type Stack struct {
	Dir    string // of all files
	Bin    string // of this project's programs
	Source string // this project's own directory

	net    *netns.Net
	log    io.Writer
	hosts  map[string]*Host
	order  []*Host
	config Config
	agents map[string]int // how many were made in a datacenter
}

// Config is what scenarios vary.
type Config struct {
	Targets      string // of nodes: host or service
	CATarget     string // of nodes: host or camaster
	CAMode       string // of members: hot or service
	PuppetDBMode string // of members: hot or service
}

// Default is how the stack starts.
var Default = Config{Targets: "host", CATarget: "host", CAMode: "hot", PuppetDBMode: "hot"}

// New prepares hosts; nothing runs yet. t's end ends all processes and removes the
// network. Steps are told to log.
func New(t netns.T, dir, source string, log io.Writer) (*Stack, error) {
	s := &Stack{Dir: dir, Bin: filepath.Join(source, "bin"), Source: source, log: log, hosts: make(map[string]*Host), config: Default, agents: make(map[string]int)}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s.net = netns.New(t)
	for _, h := range []struct {
		short, datacenter, address string
		services                   []string
	}{
		{"ns1", "datacenter1", "10.1.0.1", []string{Node}},
		{"ns2", "datacenter2", "10.2.0.1", []string{Node}},
		{"ns3", "", "10.3.0.1", []string{NSD}},
		{"m1", "datacenter1", "10.1.0.11", []string{Member, PostgreSQL, PuppetDB, Puppetserver}},
		{"m2", "datacenter1", "10.1.0.12", []string{Member, Puppetserver}},
		{"m3", "datacenter2", "10.2.0.13", []string{Member, PostgreSQL, PuppetDB, Puppetserver}},
		{"m4", "datacenter2", "10.2.0.14", []string{Member, Puppetserver}},
	} {
		host, err := s.newHost(h.short, h.datacenter, h.address)
		if err != nil {
			return nil, err
		}
		host.services = h.services
	}
	for _, h := range s.order {
		if err := s.resolve(h); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Host is one of the hosts; a name that is none is a mistake of the caller.
func (s *Stack) Host(short string) *Host {
	h := s.hosts[short]
	if h == nil {
		panic("no host " + short)
	}
	return h
}

// Hosts are some of the hosts.
func (s *Stack) Hosts(short ...string) (all []*Host) {
	for _, name := range short {
		all = append(all, s.Host(name))
	}
	return all
}

// All are all hosts, in the order in which they were made.
func (s *Stack) All() []*Host { return s.order }

// In are the hosts of a datacenter.
func (s *Stack) In(datacenter string) (all []*Host) {
	for _, h := range s.order {
		if h.Datacenter == datacenter {
			all = append(all, h)
		}
	}
	return all
}

// Masters, and Capable, which may become camaster.
var (
	Masters = []string{"m1", "m2", "m3", "m4"}
	Capable = []string{"m1", "m3"}
	Nodes   = []string{"ns1", "ns2"}
)

// NodeOf is the node of a datacenter.
func (s *Stack) NodeOf(datacenter string) *Host {
	if datacenter == "datacenter2" {
		return s.Host("ns2")
	}
	return s.Host("ns1")
}

// ServiceName is a master's name with `targets service`.
func (h *Host) ServiceName() string { return h.Short + "." + h.Datacenter + "." + Domain }

// FQDN is a host's name, and the certname of what runs there.
func (h *Host) FQDN() string { return h.Short + "." + Domain }

// resolve writes how a host finds others: its own datacenter's node first, the secondary
// last. What DNS itself
// is found by stands in /etc/hosts of those that serve it and of masters; agents' hosts
// know nothing but their resolvers.
func (s *Stack) resolve(h *Host) error {
	first, second := s.Host("ns1").Addr, s.Host("ns2").Addr
	if h.Datacenter == "datacenter2" {
		first, second = second, first
	}
	infrastructure := s.Hosts("ns1", "ns2", "ns3", "m1", "m2", "m3", "m4")
	if len(h.services) == 0 && h.Datacenter != "" {
		infrastructure = []*Host{h}
	}
	if err := h.render("hosts", "/etc/hosts", 0o644, "root", map[string]any{"Infrastructure": infrastructure}); err != nil {
		return err
	}
	return h.render("resolv.conf", "/etc/resolv.conf", 0o644, "root", map[string]any{"Resolvers": []any{first, second, s.Host("ns3").Addr}})
}

//go:embed files
var files embed.FS

var templates = template.Must(template.ParseFS(files, "files/*.*", "files/[A-Z]*", "files/hosts"))

// render writes a file of the host from one of ours.
func (h *Host) render(name, inside string, mode os.FileMode, owner string, data any) error {
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		return err
	}
	return h.Write(inside, b.String(), mode, owner)
}

// step tells what is done and how long it took.
func (s *Stack) step(ctx context.Context, name string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	if err := f(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(s.log, "  %-52s %6.1f s\n", name, time.Since(began).Seconds())
	return nil
}

// Logs are the paths of all logs that there are, but for those of requests.
func (s *Stack) Logs() []string {
	var all []string
	for _, pattern := range []string{"lab/*.log", "postgresql/*.log", "puppetserver/*.log", "puppetdb/*.log"} {
		found, _ := filepath.Glob(filepath.Join(s.Dir, "hosts", "*", "log", pattern)) // the pattern is right
		for _, path := range found {
			if !strings.HasSuffix(path, "-access.log") && !strings.HasSuffix(path, "-status.log") {
				all = append(all, path)
			}
		}
	}
	return all
}
