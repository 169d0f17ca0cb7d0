package puppetsrv

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/fall"
	pkgtls "github.com/coredns/coredns/plugin/pkg/tls"
	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/node"
	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

// Defaults, as the README gives them.
const (
	defaultPort         = 8140
	defaultPuppetDBPort = 8081
	defaultWeight       = 10
	defaultLocal        = 10
	defaultRemote       = 20
	defaultTTL          = 5
	defaultPath         = "/status/v1/simple"
	defaultConcurrency  = 256
)

// config is one understood block.
type config struct {
	zones    []string
	fall     fall.F
	node     node.Config
	state    property // where the state directory was written
	warnings []string
}

// builder gathers what the properties say.
type builder struct {
	root  string
	zones []string
	key   hash.Hash // of everything that makes the runtime what it is
	// written is where a part was written, for what is found wrong with it later;
	// by part and name as in topology.Error, and "zonefile" with the zone.
	written map[[2]string]property

	topology  topology.Topology
	ttl       uint32
	files     map[string]string // zone -> file
	ns        []string
	location  string
	state     string
	fall      fall.F
	check     probe.Check
	schedule  probe.Schedule
	threshold health.Thresholds
	probePort uint16
	probeOff  bool
	hasTLS    bool
	warnings  []string
}

// parse understands the plugin's block. It reads the files it names, starts
// nothing and changes nothing.
func parse(c *caddy.Controller) (*config, error) {
	if !c.Next() {
		return nil, c.ArgErr()
	}
	start := property{name: "puppetsrv", file: c.File(), line: c.Line()}
	b := &builder{
		root:    dnsserver.GetConfig(c).Root,
		key:     sha256.New(),
		written: make(map[[2]string]property),
		ttl:     defaultTTL,
		topology: topology.Topology{
			Local: defaultLocal, Remote: defaultRemote, PuppetDBPort: defaultPuppetDBPort,
			Distances: make(map[topology.Pair]int),
		},
		files:     make(map[string]string),
		check:     probe.Check{Path: defaultPath},
		schedule:  probe.Schedule{Interval: time.Second, Timeout: time.Second, Concurrency: defaultConcurrency},
		threshold: health.Thresholds{Rise: 2, Fall: 2},
	}
	var err error
	if b.zones, err = zones(start, c.RemainingArgs(), c.ServerBlockKeys); err != nil {
		return nil, err
	}
	keys := plugin.Zones(plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys))
	for _, z := range b.zones {
		if !keys.Contains(z) {
			b.warnings = append(b.warnings, fmt.Sprintf("zone %s is never asked for: it is in none of the server block's zones, %s", z, strings.Join(keys, ", ")))
		}
	}
	props, err := readBlock(c)
	if err != nil {
		return nil, err
	}
	if c.Next() {
		return nil, property{file: c.File(), line: c.Line()}.errf("%s", plugin.ErrOnce)
	}
	if err := b.read(props); err != nil {
		return nil, err
	}
	return b.config(start)
}

// zones are the arguments, else the server block's own.
func zones(p property, args, keys []string) ([]string, error) {
	for _, a := range args {
		if len(plugin.Host(a).NormalizeExact()) == 0 {
			return nil, p.errf("%q is no zone", a)
		}
	}
	var zones []string
	for _, z := range plugin.OriginsFromArgsOrServerBlock(args, keys) {
		if err := checkDomain(z); err != nil {
			return nil, p.errf("%q is no zone: %s", z, err)
		}
		if !slices.Contains(zones, z) {
			zones = append(zones, z)
		}
	}
	if len(zones) == 0 {
		return nil, p.errf("no zone: name one, as in `puppetsrv example.net`")
	}
	return zones, nil
}

// read understands the properties: first what others refer to.
func (b *builder) read(props []property) error {
	for _, z := range b.zones {
		io.WriteString(b.key, z+"\n")
	}
	readers := []struct {
		names []string
		read  func(property) error
	}{
		{[]string{"targets", "ca_target", "unhealthy", "priority", "puppetdb_port", "ttl"}, b.readAnswers},
		{[]string{"zonefile", "ns", "state", "fallthrough"}, b.readFiles},
		{[]string{"datacenter"}, b.readDatacenter},
		{[]string{"master"}, b.readMaster},
		{[]string{"distance", "camaster", "location"}, b.readPlaces},
		{[]string{"probe", "tls"}, b.readProbe},
	}
	for _, r := range readers {
		for _, p := range props {
			if !slices.Contains(r.names, p.name) {
				continue
			}
			if err := r.read(p); err != nil {
				return err
			}
			if p.name != "fallthrough" { // not the runtime's
				fmt.Fprintf(b.key, "%s %q\n", p.name, p.args)
			}
		}
	}
	return nil
}

func (b *builder) readAnswers(p property) (err error) {
	t := &b.topology
	var n int
	switch p.name {
	case "targets":
		n, err = p.choice("host", "service")
		t.Targets = topology.Targets(n)
	case "ca_target":
		n, err = p.choice("host", "camaster")
		t.CATarget = topology.CATarget(n)
	case "unhealthy":
		n, err = p.choice("demote", "omit")
		t.Unhealthy = topology.Unhealthy(n)
	case "puppetdb_port":
		if len(p.args) != 1 {
			return p.usage()
		}
		n, err = p.number("port", p.args[0], 1, 65535)
		t.PuppetDBPort = uint16(n)
	case "ttl":
		if len(p.args) != 1 {
			return p.usage()
		}
		n, err = p.number("seconds", p.args[0], 1, 3600)
		b.ttl = uint32(n)
	case "priority":
		if len(p.args) != 2 {
			return p.usage()
		}
		for i, to := range []*uint16{&t.Local, &t.Remote} {
			if n, err = p.number("priority", p.args[i], 0, 65535-2*topology.DownPenalty); err != nil {
				return err
			}
			*to = uint16(n)
		}
		if err := t.ValidatePriorities(); err != nil {
			return p.errf("%s", err)
		}
	}
	return err
}

func (b *builder) readFiles(p property) error {
	switch p.name {
	case "zonefile":
		if len(p.args) != 1 && len(p.args) != 2 {
			return p.usage()
		}
		origin := b.zones[0]
		if len(p.args) == 2 {
			origin = strings.ToLower(dns.Fqdn(p.args[1]))
		}
		if !slices.Contains(b.zones, origin) {
			return p.errf("zonefile: zone %s is not served here: the zones are %s", origin, strings.Join(b.zones, ", "))
		}
		if _, ok := b.files[origin]; ok {
			return p.errf("zonefile: zone %s has two zone files: keep one, or name another zone behind this one", origin)
		}
		b.files[origin] = b.path(p.args[0])
		b.written[[2]string{"zonefile", origin}] = p
	case "ns":
		if len(p.args) == 0 {
			return p.usage()
		}
		for _, a := range p.args {
			name, err := p.domain(a, b.zones[0])
			if err != nil {
				return err
			}
			b.ns = append(b.ns, name)
		}
	case "state":
		if len(p.args) != 1 {
			return p.usage()
		}
		dir, err := filepath.Abs(b.path(p.args[0]))
		if err != nil {
			return p.errf("state: %s", err)
		}
		if fi, err := os.Stat(dir); err == nil && !fi.IsDir() {
			return p.errf("state: %s is no directory", dir)
		}
		b.state = dir
		b.written[[2]string{"state", ""}] = p
	case "fallthrough":
		b.fall.SetZonesFromArgs(p.args)
	}
	return nil
}

// path is a file's path; a relative one is below the `root` plugin's directory.
func (b *builder) path(s string) string {
	if b.root != "" && !filepath.IsAbs(s) {
		return filepath.Join(b.root, s)
	}
	return s
}

func (b *builder) readDatacenter(p property) error {
	if len(p.args) != 1 && len(p.args) != 2 {
		return p.usage()
	}
	name := p.args[0]
	if b.topology.Datacenter(name) != nil {
		return p.errf("datacenter %s is given twice", name)
	}
	domain, err := p.domain(p.args[len(p.args)-1], b.zones[0])
	if err != nil {
		return err
	}
	for _, d := range b.topology.Datacenters {
		if d.Domain == domain {
			return p.errf("datacenter %s: domain %s is already datacenter %s's", name, domain, d.Name)
		}
	}
	b.written[[2]string{"datacenter", name}] = p
	b.topology.Datacenters = append(b.topology.Datacenters, topology.Datacenter{Name: name, Domain: domain})
	return nil
}

func (b *builder) readMaster(p property) error {
	if len(p.args) < 2 {
		return p.usage()
	}
	host, err := p.domain(p.args[0], b.zones[0])
	if err != nil {
		return err
	}
	if b.topology.Master(host) != nil {
		return p.errf("master %s is given twice", host)
	}
	dc := b.topology.Datacenter(p.args[1])
	if dc == nil {
		return p.errf("master %s: unknown datacenter %q: add `datacenter %s`, or use one of: %s", host, p.args[1], p.args[1], b.datacenters())
	}
	m := topology.Master{Host: host, Datacenter: dc.Name, Port: defaultPort, Weight: defaultWeight}
	service := strings.SplitN(host, ".", 2)[0]
	rest := p.args[2:]
	seen := make(map[string]bool)
	for len(rest) > 0 {
		word := rest[0]
		if seen[word] {
			return p.errf("master %s: %q is given twice", host, word)
		}
		seen[word] = true
		if rest = rest[1:]; word == "ca" {
			m.CA = true
			continue
		}
		if len(rest) == 0 {
			return p.errf("master %s: nothing behind %q: write `%s`", host, word, usages["master"])
		}
		switch word {
		case "port", "weight":
			n, err := p.number(word, rest[0], 1, 65535)
			if err != nil {
				return err
			}
			if word == "port" {
				m.Port = uint16(n)
			} else {
				m.Weight = uint16(n)
			}
			rest = rest[1:]
		case "service":
			service, rest = rest[0], rest[1:]
		case "address":
			if m.Addresses, rest, err = p.addresses(rest); err != nil {
				return err
			}
		default:
			return p.errf("master %s: unknown word %q: write `%s`", host, word, usages["master"])
		}
	}
	if seen["service"] && b.topology.Targets != topology.TargetsService {
		b.warnings = append(b.warnings, fmt.Sprintf("master %s: its service name is not used without `targets service`", host))
	}
	if b.topology.Targets == topology.TargetsService {
		if m.Service, err = p.domain(service, dc.Domain); err != nil {
			return err
		}
	}
	b.written[[2]string{"master", host}] = p
	b.topology.Masters = append(b.topology.Masters, m)
	return nil
}

func (b *builder) datacenters() string {
	var names []string
	for _, d := range b.topology.Datacenters {
		names = append(names, d.Name)
	}
	return strings.Join(names, ", ")
}

func (b *builder) readPlaces(p property) error {
	t := &b.topology
	known := func(dc string) error {
		if t.Datacenter(dc) == nil {
			return p.errf("%s: unknown datacenter %q: use one of: %s", p.name, dc, b.datacenters())
		}
		return nil
	}
	switch p.name {
	case "distance":
		if len(p.args) != 3 {
			return p.usage()
		}
		for _, dc := range p.args[:2] {
			if err := known(dc); err != nil {
				return err
			}
		}
		if p.args[0] == p.args[1] {
			return p.errf("distance: %s has no distance to itself: name two datacenters", p.args[0])
		}
		n, err := p.number("distance", p.args[2], 1, t.MaxDistance())
		if err != nil {
			return err
		}
		pair := topology.PairOf(p.args[0], p.args[1])
		if _, ok := t.Distances[pair]; ok {
			return p.errf("distance %s %s is given twice: it holds in both directions", p.args[0], p.args[1])
		}
		t.Distances[pair] = n
	case "camaster":
		if len(p.args) != 2 {
			return p.usage()
		}
		var err error
		if t.CamasterName, err = p.domain(p.args[0], b.zones[0]); err != nil {
			return err
		}
		if t.Camaster, err = p.domain(p.args[1], b.zones[0]); err != nil {
			return err
		}
		b.written[[2]string{"camaster", ""}] = p
		if err := t.ValidateCamaster(); err != nil {
			return p.errf("%s", err)
		}
	case "location":
		if len(p.args) != 1 {
			return p.usage()
		}
		b.location = p.args[0]
		return known(p.args[0])
	}
	return nil
}

func (b *builder) readProbe(p property) error {
	if p.name == "tls" {
		return b.readTLS(p)
	}
	if slices.Equal(p.args, []string{"off"}) {
		b.probeOff = true
		return nil
	}
	if len(p.args) == 0 || len(p.args)%2 != 0 {
		return p.usage()
	}
	seen := make(map[string]bool)
	for i := 0; i < len(p.args); i += 2 {
		word, s := p.args[i], p.args[i+1]
		if seen[word] {
			return p.errf("probe: %q is given twice", word)
		}
		seen[word] = true
		var err error
		switch word {
		case "interval":
			b.schedule.Interval, err = p.duration(word, s, 100*time.Millisecond, time.Hour)
		case "timeout":
			b.schedule.Timeout, err = p.duration(word, s, 10*time.Millisecond, time.Minute)
		case "fall":
			b.threshold.Fall, err = p.number(word, s, 1, 100)
		case "rise":
			b.threshold.Rise, err = p.number(word, s, 1, 100)
		case "concurrency":
			b.schedule.Concurrency, err = p.number(word, s, 1, topology.MaxMasters)
		case "port":
			var n int
			n, err = p.number(word, s, 1, 65535)
			b.probePort = uint16(n)
		case "path":
			if !strings.HasPrefix(s, "/") || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
				err = p.errf("probe: path %q: must begin with / and hold no blanks, as in %s", s, defaultPath)
			}
			b.check.Path = s
		default:
			err = p.errf("probe: unknown word %q: write `%s`", word, usages["probe"])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) readTLS(p property) error {
	if len(p.args) != 1 && len(p.args) != 3 {
		return p.usage()
	}
	paths := make([]string, len(p.args))
	for i, a := range p.args {
		paths[i] = b.path(a)
		data, err := os.ReadFile(paths[i])
		if err != nil {
			return p.errf("tls: %s", err)
		}
		b.key.Write(data) // new files, new runtime
	}
	cfg, err := pkgtls.NewTLSConfigFromArgs(paths...)
	if err != nil {
		return p.errf("tls: %s: write `%s`", err, usages["tls"])
	}
	b.check.TLS, b.hasTLS = cfg, true
	return nil
}

// config joins what was read.
func (b *builder) config(start property) (*config, error) {
	if !b.hasTLS && !b.probeOff {
		return nil, start.errf("no `tls`: the Puppet CA's certificate is needed to verify masters, as in `tls /etc/puppetlabs/puppet/ssl/certs/ca.pem`; without probes write `probe off`")
	}
	var watch *node.Watch
	if len(b.files) > 0 {
		files := slices.Sorted(maps.Values(b.files))
		watch = &node.Watch{Files: files, Stamp: node.Stamp(files), Load: b.load}
	}
	plan, warnings, err := b.plan(b.key)
	if err != nil {
		return nil, b.place(err, start).errf("%s", err)
	}
	cfg := &config{zones: b.zones, fall: b.fall, state: b.written[[2]string{"state", ""}], warnings: append(b.warnings, warnings...)}
	if len(b.ns) > 0 && len(b.files) == len(b.zones) {
		cfg.warnings = append(cfg.warnings, "`ns` is not used: every zone has a zone file")
	}
	fmt.Fprintf(b.key, "%q %v\n", b.state, b.files) // as found, below `root`
	if b.state == "" {
		cfg.warnings = append(cfg.warnings, "no `state` directory: serials are forgotten by a restart, and secondaries may then miss changes")
	}
	cfg.node = node.Config{
		Key:        hex.EncodeToString(b.key.Sum(nil)),
		Name:       b.zones[0],
		Plan:       plan,
		Thresholds: b.threshold,
		State:      b.state,
		Watch:      watch,
		Log:        log,
		Hooks:      hooks(b.zones[0]),
	}
	if !b.probeOff {
		b.check.Observer = observer()
		cfg.node.Probe = &node.Probe{Check: b.check, Schedule: b.schedule, Targets: b.targets(plan)}
	}
	return cfg, nil
}

// plan reads the zone files. What it reads goes to key, so that a reload with
// other files is another runtime.
func (b *builder) plan(key io.Writer) (*zone.Plan, []string, error) {
	var statics []zone.Static
	for _, z := range b.zones {
		s, err := b.static(z)
		if err != nil {
			return nil, nil, topology.Errorf("zonefile", z, "%s", err)
		}
		for _, rr := range s.Records { // also what a zone file includes
			fmt.Fprintln(key, rr.String())
		}
		statics = append(statics, s)
	}
	return zone.NewPlan(&b.topology, b.ttl, statics)
}

// place is the property that err is about, or fallback.
func (b *builder) place(err error, fallback property) property {
	var e *topology.Error
	if errors.As(err, &e) {
		if p, ok := b.written[[2]string{e.Part, e.Name}]; ok {
			return p
		}
	}
	return fallback
}

// load reads changed zone files for a running node.
func (b *builder) load() (*zone.Plan, []probe.Target, error) {
	plan, warnings, err := b.plan(io.Discard)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range warnings {
		log.Warningf("%s", w)
	}
	return plan, b.targets(plan), nil
}

// observer is this node's name as an observer.
func observer() string {
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "localhost"
}

func (b *builder) static(origin string) (zone.Static, error) {
	if path, ok := b.files[origin]; ok {
		return zone.ReadFile(path, origin)
	}
	return zone.Synthesize(origin, b.ns, b.ttl)
}

func (b *builder) targets(plan *zone.Plan) []probe.Target {
	targets := make([]probe.Target, len(b.topology.Masters))
	for i := range b.topology.Masters {
		m := &b.topology.Masters[i]
		targets[i] = probe.Target{Subject: m.Host, Name: b.topology.Target(m), Addresses: plan.Addresses(m), Port: m.Port}
		if b.probePort != 0 {
			targets[i].Port = b.probePort
		}
	}
	return targets
}
