package zone

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/coredns/plugin/file"
	"github.com/miekg/dns"
)

// MaxFileSize bounds a zone file, in bytes.
const MaxFileSize = 64 << 20

// synthesized timers for a zone without a zone file, in seconds; the negative
// TTL is clamped like every other zone's. RFC 1912, section 2.2.
const (
	soaRefresh = 1800
	soaRetry   = 600
	soaExpire  = 1209600
	nsTTL      = 3600
)

// Static is the part of a zone that health does not touch.
type Static struct {
	Origin  string
	Records []dns.RR // SOA, apex NS and everything else, in canonical form
}

// HasAddress reports whether there is an address at a name.
func (s Static) HasAddress(name string) bool {
	return slices.ContainsFunc(s.Records, func(rr dns.RR) bool { return rr.Header().Name == name && isAddress(rr) })
}

// ReadFile reads a zone file. $INCLUDE is allowed. The error names the file and
// what is wrong in it.
func ReadFile(path, origin string) (Static, error) {
	// Before it is opened, which waits for a writer if it is a pipe.
	switch fi, err := os.Stat(path); {
	case err != nil:
		return Static{}, fmt.Errorf("opening zone file: %w", err)
	case !fi.Mode().IsRegular():
		return Static{}, fmt.Errorf("zone file %q is a directory, a pipe or a device: a regular file is needed", path)
	case fi.Size() > MaxFileSize:
		return Static{}, fmt.Errorf("zone file %q has %d bytes: at most %d are read", path, fi.Size(), MaxFileSize)
	}
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return Static{}, fmt.Errorf("opening zone file: %w", err)
	}
	defer f.Close()
	return Read(io.LimitReader(f, MaxFileSize), origin, path)
}

// Read is ReadFile for any reader; name is for errors and relative $INCLUDEs.
func Read(r io.Reader, origin, name string) (Static, error) {
	zp := dns.NewZoneParser(r, origin, name)
	zp.SetIncludeAllowed(true)
	var rrs []dns.RR
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		rrs = append(rrs, rr)
	}
	if err := zp.Err(); err != nil {
		return Static{}, fmt.Errorf("parsing zone file %q for %s: %w", name, origin, err)
	}
	s, err := newStatic(origin, rrs)
	if err != nil {
		return Static{}, fmt.Errorf("zone file %q: %w", name, err)
	}
	return s, nil
}

// Synthesize makes the apex of a zone that has no zone file.
func Synthesize(origin string, ns []string, ttl uint32) (Static, error) {
	if len(ns) == 0 {
		return Static{}, fmt.Errorf("zone %s has no zone file and no name server: add `zonefile FILE %s` or `ns NAME...`", origin, origin)
	}
	hdr := func(t uint16, ttl uint32) dns.RR_Header {
		return dns.RR_Header{Name: origin, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
	}
	rrs := []dns.RR{&dns.SOA{
		Hdr: hdr(dns.TypeSOA, ttl), Ns: ns[0], Mbox: "hostmaster." + strings.TrimPrefix(origin, "."),
		Serial: 1, Refresh: soaRefresh, Retry: soaRetry, Expire: soaExpire, Minttl: ttl,
	}}
	for _, n := range ns {
		rrs = append(rrs, &dns.NS{Hdr: hdr(dns.TypeNS, nsTTL), Ns: n})
	}
	return newStatic(origin, rrs)
}

// newStatic brings records into the canonical form of plugin/file and checks
// what must hold for any zone.
func newStatic(origin string, rrs []dns.RR) (Static, error) {
	z := file.NewZone(origin, "")
	soas := 0
	types := make(map[string]map[uint16]bool)
	for i, rr := range rrs {
		rr, err := canonical(rr)
		if err != nil {
			return Static{}, err
		}
		rrs[i] = rr
		// Insert canonicalises in place; SRV owners it leaves alone.
		if err := checkType(rr); err != nil {
			return Static{}, err
		}
		if err := z.Insert(rr); err != nil {
			return Static{}, err
		}
		h := rr.Header()
		h.Name = strings.ToLower(h.Name)
		if !dns.IsSubDomain(origin, h.Name) {
			return Static{}, fmt.Errorf("%s %s is outside of zone %s", h.Name, dns.TypeToString[h.Rrtype], origin)
		}
		if h.Class != dns.ClassINET {
			return Static{}, fmt.Errorf("%s %s has class %s: only IN is served", h.Name, dns.TypeToString[h.Rrtype], dns.ClassToString[h.Class])
		}
		if h.Rrtype == dns.TypeSOA {
			if h.Name != origin {
				return Static{}, fmt.Errorf("the SOA's owner %s is not the zone %s", h.Name, origin)
			}
			soas++
		}
		if types[h.Name] == nil {
			types[h.Name] = make(map[uint16]bool)
		}
		if h.Rrtype == dns.TypeCNAME && types[h.Name][dns.TypeCNAME] {
			return Static{}, fmt.Errorf("%s has two CNAME records (RFC 2181, section 10.1)", h.Name)
		}
		if d, ok := rr.(*dns.DNAME); ok {
			if types[h.Name][dns.TypeDNAME] {
				return Static{}, fmt.Errorf("%s has two DNAME records (RFC 6672, section 2.4)", h.Name)
			}
			if strings.EqualFold(d.Target, h.Name) {
				return Static{}, fmt.Errorf("%s is a DNAME that leads back to itself", h.Name)
			}
		}
		types[h.Name][h.Rrtype] = true
	}
	switch {
	case soas == 0:
		return Static{}, fmt.Errorf("zone %s has no SOA record: add one, as in `@ 300 SOA ns1 hostmaster 1 1800 600 1209600 5`", origin)
	case soas > 1:
		return Static{}, fmt.Errorf("zone %s has %d SOA records: a zone has one", origin, soas)
	case !types[origin][dns.TypeNS]:
		return Static{}, fmt.Errorf("zone %s has no NS record at its apex: add one for each node", origin)
	}
	for name, ts := range types {
		if ts[dns.TypeCNAME] && len(ts) > 1 {
			return Static{}, fmt.Errorf("%s has a CNAME and other records (RFC 1034, section 3.6.2)", name)
		}
	}
	rrs = dns.Dedup(rrs, nil)
	if err := checkAliases(rrs); err != nil {
		return Static{}, err
	}
	return Static{Origin: origin, Records: rrs}, nil
}

// canonical returns rr as it is after a journey over the wire: names in one
// spelling of their escapes. It refuses what the parser lets through at the end of
// a file, a record without data.
func canonical(rr dns.RR) (dns.RR, error) {
	buf := make([]byte, dns.Len(rr)+1)
	n, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", rr.Header().Name, dns.TypeToString[rr.Header().Rrtype], err)
	}
	out, _, err := dns.UnpackRR(buf[:n], 0)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", rr.Header().Name, dns.TypeToString[rr.Header().Rrtype], err)
	}
	if out.Header().Rdlength == 0 {
		return nil, fmt.Errorf("%s %s has no data", rr.Header().Name, dns.TypeToString[rr.Header().Rrtype])
	}
	return out, nil
}

// checkType refuses what cannot be true of a zone whose answers change: its
// signatures would be stale with the first verdict.
func checkType(rr dns.RR) error {
	switch t := rr.Header().Rrtype; t {
	case dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM:
		return fmt.Errorf("%s %s: a signed zone file cannot be served, because answers follow health; remove the signatures and use the dnssec plugin, which signs as it answers", rr.Header().Name, dns.TypeToString[t])
	}
	return nil
}

// checkAliases refuses CNAMEs that lead round in a circle, for which there is no
// answer but SERVFAIL.
func checkAliases(rrs []dns.RR) error {
	next := make(map[string]string)
	for _, rr := range rrs {
		if c, ok := rr.(*dns.CNAME); ok {
			next[c.Hdr.Name] = c.Target
		}
	}
	for start := range next {
		name, hops := start, 0
		for {
			to, ok := next[name]
			if !ok {
				break
			}
			if hops++; to == start || hops > len(next) {
				return fmt.Errorf("%s is a CNAME that leads back to itself", start)
			}
			if hops > maxAliases {
				return fmt.Errorf("%s begins a chain of more than %d CNAMEs, which is longer than is followed", start, maxAliases)
			}
			name = to
		}
	}
	return nil
}

// maxAliases is how many CNAMEs plugin/file follows inside a zone.
const maxAliases = 8
