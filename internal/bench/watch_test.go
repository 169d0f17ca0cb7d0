package main

import (
	"testing"

	"github.com/miekg/dns"
)

func TestCamasterMatchers(t *testing.T) {
	const (
		alias   = "puppet-camaster.example.net. 5 IN CNAME m3.example.net."
		address = "m3.example.net. 60 IN A 127.3.16.3"
		srv     = "_x-puppet-ca._tcp.datacenter1.example.net. 5 IN SRV 10 10 8140 m3.example.net."
		other   = "_x-puppet-ca._tcp.datacenter1.example.net. 5 IN SRV 10 10 8140 m1.example.net."
	)
	for _, test := range []struct {
		name           string
		answer         []string
		aliased, alone bool
	}{
		{"nothing", nil, false, false},
		{"the alias and its address", []string{alias, address}, true, false},
		{"an alias without an address", []string{alias}, false, false},
		{"an address alone", []string{address}, false, false},
		{"one target", []string{srv}, false, true},
		{"another target", []string{other}, false, false},
		{"two targets", []string{srv, other}, false, false},
	} {
		m := new(dns.Msg)
		for _, text := range test.answer {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		if got := aliased("m3.example.net.")(m); got != test.aliased {
			t.Errorf("%s: aliased is %v", test.name, got)
		}
		if got := alone("m3.example.net.")(m); got != test.alone {
			t.Errorf("%s: alone is %v", test.name, got)
		}
		if aliased("m2.example.net.")(m) || alone("m2.example.net.")(m) {
			t.Errorf("%s: it matches a target that is not there", test.name)
		}
	}
}
