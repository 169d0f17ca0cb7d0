package zone

import (
	"slices"

	"github.com/miekg/dns"
)

// Kind says what an answer is about; it is a metric label.
type Kind int

// The kinds of prebuilt answers.
const (
	KindTiers    Kind = iota // SRV of the datacenters' masters
	KindCA                   // SRV of the camaster's services
	KindCamaster             // the CNAME
	KindAddress              // addresses of masters and service names
)

// Kinds names every kind, indexed by Kind.
var Kinds = []string{"tiers", "ca", "camaster", "address"}

// Answer is one prebuilt answer, with what is needed to cut it to a client's
// buffer. It is immutable; its slices have no spare capacity, because CoreDNS
// appends to what it is given, and its records are shared.
type Answer struct {
	Kind              Kind
	Answer, Ns, Extra []dns.RR

	floor     int   // answer records that are never cut
	size      []int // size[i] is the message with i answer records, in bytes
	nsSize    int
	groups    []int // Extra[:groups[i]] are whole sets of addresses
	groupSize []int // what Extra[:groups[i]] adds, in bytes
}

// The fixed part of a message with one question (RFC 1035, section 4.1), and of
// a record whose owner is compressed to a pointer.
const (
	headerSize   = 12
	questionSize = 4
	recordSize   = 2 + 10
	pointerReach = 1 << 14 // offsets beyond cannot be pointed at
)

// nameSize is the uncompressed wire length of a name without escapes.
func nameSize(name string) int {
	if name == "." {
		return 1
	}
	return len(name) + 1
}

// newAnswer computes the sizes. They are upper bounds that are exact for what
// matters, SRV records and addresses within the first 16 KiB: an answer is never
// cut too late.
func newAnswer(kind Kind, qname string, answer, ns, extra []dns.RR) *Answer {
	a := &Answer{Kind: kind, Answer: slices.Clip(answer), Ns: slices.Clip(ns), Extra: slices.Clip(extra), floor: len(answer)}
	n := headerSize + nameSize(qname) + questionSize
	a.size = append(make([]int, 0, len(answer)+1), n)
	for _, rr := range answer {
		n += recordBound(rr, qname)
		a.size = append(a.size, n)
	}
	for _, rr := range ns {
		a.nsSize += recordBound(rr, qname)
	}
	total := 0
	for i, rr := range extra {
		if rr.Header().Rrtype == dns.TypeA {
			total += recordSize + 4
		} else {
			total += recordSize + 16
		}
		if n+total > pointerReach {
			total += nameSize(rr.Header().Name) // its target may be out of reach
		}
		if i+1 == len(extra) || extra[i+1].Header().Name != rr.Header().Name {
			a.groups = append(a.groups, i+1)
			a.groupSize = append(a.groupSize, total)
		}
	}
	return a
}

// recordBound is at least the wire length of rr in a message that asks qname.
func recordBound(rr dns.RR, qname string) int {
	if srv, ok := rr.(*dns.SRV); ok && srv.Hdr.Name == qname { // most of them
		return srvSize(srv)
	}
	n := dns.Len(rr)
	if owner := rr.Header().Name; owner == qname || dns.IsSubDomain(owner, qname) {
		n += 2 - nameSize(owner)
	}
	return n
}

// srvSize is the wire length of an answer to the question for its own name: the
// target is not compressed (RFC 2782, "Target").
func srvSize(srv *dns.SRV) int { return recordSize + 6 + nameSize(srv.Target) }

// newTiers is newAnswer for the list of tiers: everything behind the first local
// records may be cut. Where an answer does not fit the smallest buffer, each
// datacenter loses other targets of a tier: the order within a tier is turned by
// turn, so that not all the world leaves out the same masters.
func newTiers(qname string, srvs []dns.RR, local int, turn uint64, ns, extra []dns.RR) *Answer {
	n := headerSize + nameSize(qname) + questionSize
	for _, rr := range srvs {
		n += srvSize(rr.(*dns.SRV))
	}
	if n > dns.MinMsgSize {
		srvs = slices.Clone(srvs)
		for start := local; start < len(srvs); {
			end := start + 1
			for end < len(srvs) && srvs[end].(*dns.SRV).Priority == srvs[start].(*dns.SRV).Priority {
				end++
			}
			rotate(srvs[start:end], int(turn%uint64(end-start)))
			start = end
		}
	}
	a := newAnswer(KindTiers, qname, srvs, ns, extra)
	a.floor = max(local, 1)
	return a
}

// rotate moves the first n records to the end.
func rotate(rrs []dns.RR, n int) {
	slices.Reverse(rrs[:n])
	slices.Reverse(rrs[n:])
	slices.Reverse(rrs)
}

// Fit returns the sections that fit in size bytes. In this order it gives up the
// authority section, addresses, and targets from the last tier upward; what may
// not be cut is returned even if too long, for the server to truncate and flag.
// cut says that targets were given up. It does not allocate.
func (a *Answer) Fit(size int) (answer, ns, extra []dns.RR, cut bool) {
	n := a.size[len(a.Answer)]
	last := len(a.groups) - 1
	if last < 0 && n+a.nsSize <= size || last >= 0 && n+a.nsSize+a.groupSize[last] <= size {
		return a.Answer, a.Ns, a.Extra, false
	}
	if n <= size {
		for ; last >= 0; last-- {
			if n+a.groupSize[last] <= size {
				return a.Answer, nil, a.Extra[:a.groups[last]:a.groups[last]], false
			}
		}
		return a.Answer, nil, nil, false
	}
	i, exact := slices.BinarySearch(a.size, size)
	if !exact {
		i--
	}
	i = min(max(i, a.floor), len(a.Answer))
	return a.Answer[:i:i], nil, nil, i < len(a.Answer)
}
