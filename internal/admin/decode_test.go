package admin_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

func TestBodies(t *testing.T) {
	s := newSite(t, nil)
	c := s.raw(s.named("ops.example.net"), true)
	camaster := func(fields string) string { return `{"reason": "drill", "host": "m3.example.net", ` + fields + `}` }
	drain := func(fields string) string { return `{"reason": "drill", ` + fields + `}` }
	for _, test := range []struct {
		name, path, body string
		status           int
		says             string
	}{
		{"good", "/v1/camaster", camaster(`"expect": "0.3.ns1.example.net", "force": true, "wait": "none"`), 200, ""},
		{"blanks around", "/v1/camaster", "\n " + camaster(`"expect": "0"`) + "\n ", 200, ""},
		{"unknown field", "/v1/camaster", camaster(`"expect": "0", "expects": "0"`), 400, `"expects\": no such field: there are accept_data_loss, expect, force`},
		{"another case", "/v1/camaster", camaster(`"Expect": "0"`), 400, `no such field`},
		{"given twice", "/v1/camaster", camaster(`"expect": "0", "expect": "1"`), 400, `expect: given twice`},
		{"null", "/v1/camaster", camaster(`"expect": null`), 400, `expect: \"null\": want a string`},
		{"number for text", "/v1/camaster", camaster(`"expect": 0`), 400, `expect: \"0\": want a string`},
		{"text for truth", "/v1/camaster", camaster(`"expect": "0", "force": "yes"`), 400, `want true or false`},
		{"trailing data", "/v1/camaster", camaster(`"expect": "0"`) + `{}`, 400, `something follows`},
		{"trailing garbage", "/v1/camaster", camaster(`"expect": "0"`) + `x`, 400, `something follows`},
		{"cut", "/v1/camaster", `{"host": "m3`, 400, `no JSON`},
		{"unclosed", "/v1/camaster", `{"host": "m3"`, 400, `no JSON`},
		{"list", "/v1/camaster", `[]`, 400, `no JSON object`},
		{"not UTF-8", "/v1/camaster", camaster("\"expect\": \"\xff\""), 400, `not UTF-8`},
		{"no host", "/v1/camaster", `{"reason": "drill", "expect": "0"}`, 400, `host: missing`},
		{"bad host", "/v1/camaster", `{"host": "m3 example", "reason": "drill", "expect": "0"}`, 400, `host: \"m3 example\" is no host name`},
		{"host of dots", "/v1/camaster", `{"host": "a..b", "reason": "drill", "expect": "0"}`, 400, `is no host name`},
		{"long host", "/v1/camaster", `{"host": "` + strings.Repeat("a.", 130) + `", "reason": "drill", "expect": "0"}`, 400, `is no host name`},
		{"no expect", "/v1/camaster", `{"host": "m3", "reason": "drill"}`, 400, `expect: missing`},
		{"bad expect", "/v1/camaster", camaster(`"expect": "3"`), 400, `EPOCH.COUNTER.NODE`},
		{"bad wait", "/v1/camaster", camaster(`"expect": "0", "wait": "some"`), 400, `all, majority or none`},
		{"another kind", "/v1/camaster", camaster(`"expect": "0", "kind": "coup"`), 400, `want handover, switchover, failover, or nothing`},
		{"handover to nobody", "/v1/camaster", camaster(`"expect": "0", "kind": "handover"`), 400, `handover: missing`},
		{"handover to itself", "/v1/camaster", camaster(`"expect": "0", "kind": "handover", "handover": "m3.example.net."`), 400, `is the host itself`},
		{"handover without its kind", "/v1/camaster", camaster(`"expect": "0", "handover": "m1"`), 400, `goes with kind handover only`},
		{"no reason", "/v1/drains/m3", `{}`, 400, `reason: missing`},
		{"empty reason", "/v1/drains/m3", `{"reason": " "}`, 400, `reason: missing`},
		{"500 bytes", "/v1/drains/m3", `{"reason": "` + strings.Repeat("ü", 250) + `"}`, 200, ``},
		{"501 bytes", "/v1/drains/m3", `{"reason": "` + strings.Repeat("ü", 250) + `x"}`, 400, `501 bytes: want at most 500`},
		{"control character", "/v1/drains/m3", `{"reason": "a\u001b[2J"}`, 400, `U+001B`},
		{"new line", "/v1/drains/m3", `{"reason": "a\nb"}`, 400, `U+000A`},
		{"right to left", "/v1/drains/m3", `{"reason": "a\u202eb"}`, 400, `U+202E`},
		{"1s", "/v1/drains/m3", drain(`"for": "1s"`), 200, ``},
		{"8760h", "/v1/drains/m3", drain(`"for": "8760h", "wait": "majority"`), 200, ``},
		{"too short", "/v1/drains/m3", drain(`"for": "999ms"`), 400, `from 1s to 8760h`},
		{"too long", "/v1/drains/m3", drain(`"for": "8760h1s"`), 400, `from 1s to 8760h`},
		{"no unit", "/v1/drains/m3", drain(`"for": "30"`), 400, `from 1s to 8760h`},
		{"bad host in the path", "/v1/drains/m3%20x", `{"reason": "drill"}`, 400, `is no host name`},
		{"slash in the path", "/v1/drains/m3%2Fx", `{"reason": "drill"}`, 400, `is no host name`},
	} {
		t.Run(test.name, func(t *testing.T) {
			calls := len(s.backend.calls)
			a := s.do(c, "PUT", test.path, test.body)
			if a.StatusCode != test.status || !strings.Contains(a.body, test.says) {
				t.Errorf("%s %s, want %d and %q", a.Status, a.body, test.status, test.says)
			}
			if called := len(s.backend.calls) != calls; called != (test.status == 200) {
				t.Errorf("the backend was called: %v", called)
			}
		})
	}
}

func TestContentType(t *testing.T) {
	s := newSite(t, nil)
	c := s.raw(s.named("ops.example.net"), true)
	for value, want := range map[string]int{
		"application/json":                  200,
		"application/json; charset=UTF-8":   200,
		"Application/JSON":                  200,
		"application/json; charset=latin1":  415,
		"text/plain":                        415,
		"application/x-www-form-urlencoded": 415,
		"application/merge-patch+json":      415,
		"":                                  415,
		"application/json, text/plain; ;;":  415,
	} {
		if a := s.do(c, "PUT", "/v1/drains/m3", `{"reason": "drill"}`, "Content-Type", value); a.StatusCode != want {
			t.Errorf("%q: %s %s", value, a.Status, a.body)
		}
	}
	if a := s.do(c, "PUT", "/v1/drains/m3", `{"reason": "drill"}`, "Content-Encoding", "gzip"); a.StatusCode != 415 {
		t.Errorf("gzip: %s %s", a.Status, a.body)
	}
	for _, path := range []string{"/v1/keys", "/v1/keys/0123abcd/use", "/v1/masters/m1/rejoin"} {
		if a := s.do(c, "POST", path, `{}`); a.StatusCode != 400 || !strings.Contains(a.body, "takes no body") {
			t.Errorf("%s: %s %s", path, a.Status, a.body)
		}
	}
}

// What the backend gets is normalised.
func TestValues(t *testing.T) {
	s := newSite(t, nil)
	c := s.client(s.named("ops.example.net"))
	want := func(call string, err error) {
		t.Helper()
		if err != nil || s.backend.last() != call {
			t.Errorf("got %q and %v, want %q", s.backend.last(), err, call)
		}
	}
	_, err := c.SetCamaster(t.Context(), admin.SetCamaster{Host: "M3.Example.NET.", Reason: "drill", Expect: "0"})
	want("ops.example.net: camaster {Host:m3.example.net Reason:drill Expect:0 Force:false Wait:all Kind: Handover: AcceptDataLoss:false}", err)
	_, err = c.SetCamaster(t.Context(), admin.SetCamaster{Host: "m1", Handover: "M3.", Kind: admin.KindHandover, Reason: "drill", Expect: "0", AcceptDataLoss: true})
	want("ops.example.net: camaster {Host:m1 Reason:drill Expect:0 Force:false Wait:all Kind:handover Handover:m3 AcceptDataLoss:true}", err)
	_, err = c.Master(t.Context(), "M3.Example.NET.")
	want("master m3.example.net", err)
	_, err = c.Plan(t.Context(), admin.KindSwitchover, "M3.Example.NET.")
	want("plan switchover m3.example.net", err)
	_, err = c.Rejoin(t.Context(), "M1.Example.NET.")
	want("ops.example.net: rejoin m1.example.net", err)
	_, err = c.Drain(t.Context(), "M3.Example.NET.", admin.SetDrain{Reason: "käse 漢字", For: "30m", Wait: admin.WaitNone})
	want("ops.example.net: drain m3.example.net {Reason:käse 漢字 For:30m Wait:none}", err)
	_, err = c.Undrain(t.Context(), "M3.example.net.", "")
	want(`ops.example.net: undrain m3.example.net ""`, err)
	_, err = c.Undrain(t.Context(), "m3.example.net", "it is well & good")
	want(`ops.example.net: undrain m3.example.net "it is well & good"`, err)
	_, err = c.UseKey(t.Context(), "0123ABCD")
	want("ops.example.net: use key 0123abcd", err)
	_, err = c.RemoveKey(t.Context(), "0123abcd")
	want("ops.example.net: remove key 0123abcd", err)
	_, err = c.History(t.Context(), "drain/M3.example.net.", 0)
	want("history drain/m3.example.net", err)
	_, err = c.History(t.Context(), "", 0)
	want("history ", err)

	s.backend.history = make([]admin.Write, 5)
	if h, err := c.History(t.Context(), "", 3); err != nil || len(h) != 3 {
		t.Errorf("limit 3: %d, %v", len(h), err)
	}

	_, err = c.Plan(t.Context(), admin.KindSet, "m3")
	wantFault(t, err, http.StatusBadRequest, "bad-value", "kind:", "want failover or switchover")
	_, err = c.Plan(t.Context(), admin.KindFailover, "")
	wantFault(t, err, http.StatusBadRequest, "bad-value", "to: missing")
	_, err = c.Master(t.Context(), "m3..x")
	wantFault(t, err, http.StatusBadRequest, "bad-value", "host:")
	_, err = c.Rejoin(t.Context(), "m3..x")
	wantFault(t, err, http.StatusBadRequest, "bad-value", "host:")
	_, err = c.UseKey(t.Context(), "xyz")
	wantFault(t, err, http.StatusBadRequest, "bad-value", "id:", "8 hex digits")
	_, err = c.RemoveKey(t.Context(), "0123abcde")
	wantFault(t, err, http.StatusBadRequest, "bad-value", "id:", "8 hex digits")
	_, err = c.Undrain(t.Context(), "m3", strings.Repeat("x", 501))
	wantFault(t, err, http.StatusBadRequest, "bad-value", "reason:", "501 bytes")
	_, err = c.Undrain(t.Context(), "m3..x", "")
	wantFault(t, err, http.StatusBadRequest, "bad-value", "host:")
	_, err = c.History(t.Context(), "a b", 0)
	wantFault(t, err, http.StatusBadRequest, "bad-value", "key:")
	raw := s.raw(s.named("ops.example.net"), true)
	for _, limit := range []string{"0", "-1", "x", "99999999999999999999"} {
		if a := s.do(raw, "GET", "/v1/history?limit="+url.QueryEscape(limit), ""); a.StatusCode != 400 || !strings.Contains(a.body, "limit:") {
			t.Errorf("limit %s: %s %s", limit, a.Status, a.body)
		}
	}
}
