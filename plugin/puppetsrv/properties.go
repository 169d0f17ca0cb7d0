package puppetsrv

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
)

// property is one line of the plugin's block.
type property struct {
	name string
	args []string
	file string
	line int
}

// errf is an error at p's place, in the words of Caddy's own.
func (p property) errf(format string, args ...any) error {
	return fmt.Errorf("%s:%d - Error during parsing: %s", p.file, p.line, fmt.Sprintf(format, args...))
}

// usage is errf for wrong arguments.
func (p property) usage() error {
	return p.errf("%s: wrong arguments %q: write `%s`", p.name, p.args, usages[p.name])
}

// usages are the known properties and how each is written.
var usages = map[string]string{
	"zonefile":      "zonefile FILE [ZONE]",
	"ns":            "ns NAME...",
	"datacenter":    "datacenter NAME [DOMAIN]",
	"master":        "master HOST DATACENTER [port N] [weight N] [ca] [service NAME] [address IP...]",
	"distance":      "distance DATACENTER DATACENTER N",
	"priority":      "priority LOCAL REMOTE",
	"camaster":      "camaster NAME HOST",
	"ca_target":     "ca_target host|camaster",
	"puppetdb_port": "puppetdb_port N",
	"unhealthy":     "unhealthy demote|omit",
	"targets":       "targets host|service",
	"ttl":           "ttl SECONDS",
	"location":      "location DATACENTER",
	"probe":         "probe [interval D] [timeout D] [fall N] [rise N] [path P] [port N] [concurrency N]` or `probe off",
	"tls":           "tls CERT KEY CA` or `tls CA",
	"state":         "state DIRECTORY",
	"fallthrough":   "fallthrough [ZONES...]",
	"node":          "node NAME",
	"gossip":        "gossip BIND [advertise ADDR] [join HOST...] [key FILE] [profile lan|wan|local]",
	"members":       "members accept PATTERN...",
	"crl":           "crl FILE` or `crl off",
	"admin":         "admin unix:///PATH|https://ADDR:PORT...",
	"admin_allow":   "admin_allow read|write|sign CERTNAME...",
}

// repeatable are the properties that may stand more than once.
var repeatable = []string{"zonefile", "datacenter", "master", "distance", "members", "admin", "admin_allow"}

// readBlock reads the whole block, so that its lines can be understood in the
// order of their meaning and not of their writing.
func readBlock(c *caddy.Controller) ([]property, error) {
	var props []property
	first := make(map[string]int)
	for c.NextBlock() {
		p := property{name: c.Val(), file: c.File(), line: c.Line()}
		p.args = c.RemainingArgs()
		if _, ok := usages[p.name]; !ok {
			return nil, p.errf("unknown property '%s'%s", p.name, didYouMean(p.name))
		}
		if line, ok := first[p.name]; ok && !slices.Contains(repeatable, p.name) {
			return nil, p.errf("%s is given twice, first on line %d: keep one of the two", p.name, line)
		}
		if slices.Contains(p.args, "") {
			return nil, p.errf("%s: an argument is empty: write `%s`", p.name, usages[p.name])
		}
		first[p.name] = p.line
		props = append(props, p)
	}
	return props, nil
}

// didYouMean names the known property that is nearest to name.
func didYouMean(name string) string {
	names := make([]string, 0, len(usages))
	for n := range usages {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if len(name) > 2 && (strings.HasPrefix(n, name) || strings.HasPrefix(name, n)) || editDistance(n, name) <= 2 {
			return fmt.Sprintf(": did you mean `%s`?", usages[n])
		}
	}
	return ": the properties are " + strings.Join(names, ", ")
}

// editDistance is the Levenshtein distance.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// choice returns the index of the property's only argument among words.
func (p property) choice(words ...string) (int, error) {
	if len(p.args) != 1 {
		return 0, p.usage()
	}
	i := slices.Index(words, p.args[0])
	if i < 0 {
		return 0, p.errf("%s %q: must be one of %s", p.name, p.args[0], strings.Join(words, ", "))
	}
	return i, nil
}

// number parses an integer from lo to hi.
func (p property) number(what, s string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < lo || n > hi {
		return 0, p.errf("%s: %s %q: must be a whole number from %d to %d", p.name, what, s, lo, hi)
	}
	return n, nil
}

// duration parses a duration from lo to hi.
func (p property) duration(what, s string, lo, hi time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < lo || d > hi {
		return 0, p.errf("%s: %s %q: must be a duration from %v to %v, as in 1s", p.name, what, s, lo, hi)
	}
	return d, nil
}

// domain makes s a full name: as it is if it has several labels, else under
// parent. Host name letters only, and underscores.
func (p property) domain(s, parent string) (string, error) {
	name := strings.ToLower(s)
	if !strings.Contains(strings.TrimSuffix(name, "."), ".") && !strings.HasSuffix(name, ".") {
		name += "." + strings.TrimPrefix(parent, ".")
	}
	name = dns.Fqdn(name)
	if _, err := netip.ParseAddr(strings.TrimSuffix(s, ".")); err == nil {
		return "", p.errf("%s: %s is an address: a name is needed here", p.name, s)
	}
	if err := checkDomain(name); err != nil {
		return "", p.errf("%s: %q is no domain name: %s", p.name, s, err)
	}
	return name, nil
}

func checkDomain(name string) error {
	if _, ok := dns.IsDomainName(name); !ok {
		return errors.New("labels have 1 to 63 letters, names at most 253")
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return fmt.Errorf("%q is not allowed, only letters, digits, - and _", r)
		}
	}
	return nil
}

// addresses takes the addresses at the beginning of args and returns the rest.
func (p property) addresses(args []string) (addrs []netip.Addr, rest []string, err error) {
	for len(args) > 0 {
		a, err := netip.ParseAddr(args[0])
		if err != nil {
			break
		}
		if a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return nil, nil, p.errf("%s: address %s is no address of a host", p.name, args[0])
		}
		if slices.Contains(addrs, a.Unmap()) {
			return nil, nil, p.errf("%s: address %s is given twice", p.name, args[0])
		}
		addrs, args = append(addrs, a.Unmap()), args[1:]
	}
	if len(addrs) == 0 {
		return nil, nil, p.errf("%s: `address` needs at least one IP address behind it", p.name)
	}
	return addrs, args, nil
}
