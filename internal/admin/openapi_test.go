package admin_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schema is what openapi.json says of a type.
type schema struct {
	Ref                  string             `json:"$ref"`
	Type                 string             `json:"type"`
	Format               string             `json:"format"`
	Required             []string           `json:"required"`
	Properties           map[string]*schema `json:"properties"`
	Items                *schema            `json:"items"`
	AdditionalProperties any                `json:"additionalProperties"`
	Enum                 []string           `json:"enum"`
}

type described struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		OperationID string                               `json:"operationId"`
		Parameters  []struct{ Name, In string }          `json:"parameters"`
		RequestBody *struct{ Content content }           `json:"requestBody"`
		Responses   map[string]struct{ Content content } `json:"responses"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]*schema `json:"schemas"`
	} `json:"components"`
}

type content map[string]struct{ Schema schema }

func describe(t *testing.T) described {
	t.Helper()
	var d described
	data, err := os.ReadFile("openapi.json")
	fatal(t, err)
	fatal(t, json.Unmarshal(data, &d))
	return d
}

// types are those of the API that are the whole of a body or an answer; the others
// are found from them.
var types = []any{
	admin.Status{}, admin.Masters{}, admin.Zones{}, admin.Zone{}, admin.Camaster{}, admin.History{}, admin.SetCamaster{},
	admin.SetDrain{}, admin.Result{}, admin.Cluster{}, admin.Keys{}, admin.KeyResult{}, admin.Event{}, admin.Fault{},
	admin.Plan{}, admin.Rejoin{},
}

// Every field of every type is in its schema, and every schema is of a type.
func TestSchemasAreTheTypes(t *testing.T) {
	d := describe(t)
	seen := make(map[string]bool)
	var visit func(reflect.Type)
	visit = func(typ reflect.Type) {
		name := schemaName(typ)
		if seen[name] {
			return
		}
		seen[name] = true
		s := d.Components.Schemas[name]
		if s == nil {
			t.Errorf("no schema of %s", name)
			return
		}
		if typ.Kind() == reflect.String {
			return
		}
		fields := make(map[string]bool)
		for i := range typ.NumField() {
			f := typ.Field(i)
			property, option, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields[property] = true
			p := s.Properties[property]
			if p == nil {
				t.Errorf("%s.%s is not in the schema", name, property)
				continue
			}
			if required := slices.Contains(s.Required, property); required == strings.HasPrefix(option, "omit") {
				t.Errorf("%s.%s: required is %v, and the tag says %q", name, property, required, option)
			}
			if got, want := written(p), inSchema(f.Type, visit); got != want {
				t.Errorf("%s.%s: the schema says %s, the type is %s", name, property, got, want)
			}
		}
		for property := range s.Properties {
			if !fields[property] {
				t.Errorf("%s.%s is in the schema only", name, property)
			}
		}
		if strict := s.AdditionalProperties == false; strict != strings.HasPrefix(name, "Set") {
			t.Errorf("%s: additionalProperties is %v; bodies are strict, answers may grow", name, s.AdditionalProperties)
		}
	}
	for _, v := range types {
		visit(reflect.TypeOf(v))
	}
	for name := range d.Components.Schemas {
		if !seen[name] {
			t.Errorf("schema %s is of no type", name)
		}
	}
	if got, want := d.Components.Schemas["Wait"].Enum, []string{string(admin.WaitAll), string(admin.WaitMajority), string(admin.WaitNone)}; !slices.Equal(got, want) {
		t.Errorf("Wait: %v", got)
	}
	if got, want := d.Components.Schemas["Kind"].Enum, []string{string(admin.KindSet), string(admin.KindHandover), string(admin.KindSwitchover), string(admin.KindFailover)}; !slices.Equal(got, want) {
		t.Errorf("Kind: %v", got)
	}
}

// written is a property in words, inSchema a Go type in the same.
func written(s *schema) string {
	switch {
	case s.Ref != "":
		return strings.TrimPrefix(s.Ref, "#/components/schemas/")
	case s.Type == "array":
		return "list of " + written(s.Items)
	case s.Format != "":
		return s.Format
	}
	return s.Type
}

func inSchema(t reflect.Type, visit func(reflect.Type)) string {
	switch t.Kind() {
	case reflect.Pointer:
		return inSchema(t.Elem(), visit)
	case reflect.Slice:
		return "list of " + inSchema(t.Elem(), visit)
	case reflect.Map:
		return "object"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "number"
	case reflect.String:
		if t.PkgPath() == "" {
			return "string"
		}
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return "date-time"
		}
	default:
		return "integer"
	}
	visit(t)
	return schemaName(t)
}

// schemaName is what the document calls a type: those of what a member says of its
// host have a prefix, because some are called as others here are.
func schemaName(t reflect.Type) string {
	if t.PkgPath() == reflect.TypeFor[evidence.Evidence]().PkgPath() {
		return "Member" + t.Name()
	}
	return t.Name()
}

// Every operation of the document is one of the server, and the other way round.
func TestPathsAreTheRoutes(t *testing.T) {
	d := describe(t)
	inDocument := make(map[string]bool)
	for path, methods := range d.Paths {
		for m, o := range methods {
			line := strings.ToUpper(m) + " " + path
			for _, p := range o.Parameters {
				if p.In == "query" {
					line += " " + p.Name
				}
			}
			if o.RequestBody != nil {
				line += " body"
			}
			inDocument[line] = true
		}
	}
	inServer := make(map[string]bool)
	for _, line := range admin.Routes() {
		inServer[line] = true
	}
	if !maps.Equal(inDocument, inServer) {
		t.Errorf("document and server differ:\n%q\n%q", slices.Sorted(maps.Keys(inDocument)), slices.Sorted(maps.Keys(inServer)))
	}
}

// validator compiles the schemas of the document itself.
func validator(t *testing.T) func(pointer string, data []byte) error {
	t.Helper()
	file, err := os.ReadFile("openapi.json")
	fatal(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(file))
	fatal(t, err)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020) // as OpenAPI 3.1 says
	c.AssertFormat()
	fatal(t, c.AddResource("openapi.json", doc))
	return func(pointer string, data []byte) error {
		s, err := c.Compile("openapi.json#" + pointer)
		if err != nil {
			return err
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			return err
		}
		return s.Validate(v)
	}
}

// filled sets every field of a value, to something.
func filled(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Now().In(time.FixedZone("", 3600))))
			return
		}
		for i := range v.NumField() {
			filled(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		filled(v.Index(0)) // the second is empty in all parts
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]uint64{"key": 1}))
	case reflect.String:
		v.SetString("datacenter1")
		if v.Type() == reflect.TypeFor[admin.Kind]() {
			v.SetString(string(admin.KindFailover))
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Int:
		v.SetInt(1)
	default:
		v.SetUint(1)
	}
}

// What the server answers is what the document says, full or empty.
func TestAnswersValidate(t *testing.T) {
	validate := validator(t)
	d := describe(t)
	for _, full := range []bool{false, true} {
		s := newSite(t, nil)
		s.backend.zones = []admin.Zone{{Datacenter: "datacenter1"}}
		if full {
			b := s.backend
			for _, v := range []any{&b.status, &b.masters, &b.zones, &b.history, &b.result, &b.keys, &b.plan, &b.rejoin} {
				filled(reflect.ValueOf(v).Elem())
			}
		}
		c := s.raw(s.named("ops.example.net"), true)
		check := func(o operation, path string) {
			t.Helper()
			a := s.do(c, o.method, o.path, o.body)
			pointer := "/components/schemas/Fault"
			if a.StatusCode == 200 {
				media := a.Header.Get("Content-Type")
				if media == "text/event-stream" {
					return
				}
				pointer = "/paths/" + strings.ReplaceAll(path, "/", "~1") + "/" + strings.ToLower(o.method) +
					"/responses/200/content/" + strings.ReplaceAll(media, "/", "~1") + "/schema"
			}
			if err := validate(pointer, []byte(a.body)); err != nil {
				t.Errorf("full %v, %s %s: %s\n%v\n%.500s", full, o.method, o.path, a.Status, err, a.body)
			}
			if o.body != "" && a.StatusCode == 200 {
				if err := validate("/paths/"+strings.ReplaceAll(path, "/", "~1")+"/put/requestBody/content/application~1json/schema", []byte(o.body)); err != nil {
					t.Errorf("the body of %v: %v", o, err)
				}
			}
			if a.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%v: Cache-Control %q", o, a.Header.Get("Cache-Control"))
			}
		}
		ok := operations(t)
		for _, o := range ok {
			path := o.path
			for template := range d.Paths {
				if plain, _, _ := strings.Cut(o.path, "?"); matches(template, plain) {
					path = template
				}
			}
			check(o, path)
		}
		check(operation{"GET", "/v1/nothing", ""}, "")
		check(operation{"POST", "/v1/status", ""}, "")
		fault := new(admin.Fault)
		if full {
			filled(reflect.ValueOf(fault).Elem())
		}
		fault.Status = 409
		s.backend.err = fault
		check(operation{"POST", "/v1/keys", ""}, "/v1/keys")
	}
	var event admin.Event
	filled(reflect.ValueOf(&event).Elem())
	s := newSite(t, nil)
	s.backend.emit(event)
	c := s.dial()
	c.Write([]byte("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok {
			if err := validate("/components/schemas/Event", data); err != nil {
				t.Errorf("%v\n%s", err, data)
			}
			return
		}
	}
	t.Errorf("no event came: %v", lines.Err())
}

func matches(template, path string) bool {
	a, b := strings.Split(template, "/"), strings.Split(path, "/")
	if len(a) != len(b) || template == path {
		return template == path
	}
	for i := range a {
		if a[i] != b[i] && !strings.HasPrefix(a[i], "{") {
			return false
		}
	}
	return true
}

// The server's document is the file.
func TestServedDocument(t *testing.T) {
	s := newSite(t, nil)
	a := s.do(s.raw(s.named("ops.example.net"), true), "GET", "/v1/openapi.json", "")
	file, err := os.ReadFile("openapi.json")
	fatal(t, err)
	var got, want any
	fatal(t, json.Unmarshal([]byte(a.body), &got))
	fatal(t, json.Unmarshal(file, &want))
	if !reflect.DeepEqual(got, want) {
		t.Error("they differ")
	}
	if v := describe(t).OpenAPI; !strings.HasPrefix(v, "3.1.") {
		t.Errorf("OpenAPI %s", v)
	}
}

// Lists are lists and times are in UTC, whatever the backend has; and what it has
// is left as it was.
func TestCanonicalAnswers(t *testing.T) {
	s := newSite(t, nil)
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.FixedZone("", 2*3600))
	s.backend.masters = []admin.Master{{Host: "m1.example.net", Drain: &admin.Drain{Since: at}}}
	a := s.do(s.raw(s.named("ops.example.net"), true), "GET", "/v1/masters", "")
	for _, want := range []string{`"verdicts":[]`, `"evidence":[]`, `"since":"2026-05-01T10:00:00Z"`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("no %s in %s", want, a.body)
		}
	}
	if m := s.backend.masters[0]; m.Verdicts != nil || m.Drain.Since != at {
		t.Errorf("the backend's own value was changed: %+v", m)
	}
	if strings.Contains(a.body, "until") || strings.Contains(a.body, "certificate") {
		t.Errorf("what is not there is written: %s", a.body)
	}
}

// HEAD is GET without the body.
func TestMethods(t *testing.T) {
	s := newSite(t, nil)
	c := s.raw(s.named("ops.example.net"), false)
	for _, test := range []struct {
		method, path  string
		status        int
		kind, allowed string
	}{
		{"HEAD", "/v1/status", 200, "", ""},
		{"POST", "/v1/status", 405, "method-not-allowed", "GET, HEAD"},
		{"DELETE", "/v1/camaster", 405, "method-not-allowed", "GET, HEAD, PUT"},
		{"GET", "/v1/drains/m3.example.net", 405, "method-not-allowed", "DELETE, PUT"},
		{"OPTIONS", "/v1/status", 405, "method-not-allowed", "GET, HEAD"},
		{"GET", "/", 404, "no-such-path", ""},
		{"GET", "/v2/status", 404, "no-such-path", ""},
		{"GET", "/v1/status/", 404, "no-such-path", ""},
		{"GET", "/v1//status", 404, "no-such-path", ""},
		{"GET", "/v1/x/../status", 404, "no-such-path", ""},
		{"GET", "/v1/zones/nowhere", 404, "no-such-datacenter", ""},
		{"GET", "/v1/status?x=1", 400, "bad-query", ""},
		{"GET", "/v1/status?%zz", 400, "bad-query", ""},
		{"GET", "/v1/history?limit=1&limit=2", 400, "bad-value", ""},
	} {
		a := s.do(c, test.method, test.path, "")
		if a.StatusCode != test.status || a.Header.Get("Allow") != test.allowed || !strings.Contains(a.body, test.kind) {
			t.Errorf("%s %s: %s, Allow %q, %s", test.method, test.path, a.Status, a.Header.Get("Allow"), a.body)
		}
		if want := map[bool]string{true: "application/json", false: "application/problem+json"}[test.status == 200]; a.Header.Get("Content-Type") != want {
			t.Errorf("%s %s: Content-Type %q", test.method, test.path, a.Header.Get("Content-Type"))
		}
	}
	// `OPTIONS *` is nobody's business either, and net/http does not answer it itself.
	raw := s.dial()
	raw.Write([]byte("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	if status, _ := read(t, raw); status != http.StatusNotFound {
		t.Errorf("OPTIONS *: %d", status)
	}
}

var _ admin.Backend = (*backend)(nil)
