package imsxml

import "testing"

func TestSame(t *testing.T) {
	const file = "<?xml version='1.0'?>\n<serverconf>\n  <!-- a  note -->\n  <shared><ims b='2' a=\"1\"/></shared><mta>x</mta>\n</serverconf>\n"
	for name, test := range map[string]struct {
		other string
		same  bool
	}{
		"itself": {file, true},
		"another form": {"<?xml version=\"1.0\" encoding='ISO-8859-1'?><serverconf><!-- a note --><shared>\r\n<ims a='1' b='2'></ims></shared>" +
			"<mta> x </mta></serverconf>", true},
		"another value":       {"<serverconf><!-- a note --><shared><ims a='1' b='3'/></shared><mta>x</mta></serverconf>", false},
		"an attribute more":   {"<serverconf><!-- a note --><shared><ims a='1' b='2' c=''/></shared><mta>x</mta></serverconf>", false},
		"no comment":          {"<serverconf><shared><ims a='1' b='2'/></shared><mta>x</mta></serverconf>", false},
		"another text":        {"<serverconf><!-- a note --><shared><ims a='1' b='2'/></shared><mta>y</mta></serverconf>", false},
		"an element more":     {"<serverconf><!-- a note --><shared><ims a='1' b='2'/></shared><mta>x</mta><mta/></serverconf>", false},
		"an empty ims beside": {"<serverconf><!-- a note --><shared><ims a='1' b='2'/><ims/></shared><mta>x</mta></serverconf>", true},
		"damaged":             {"<serverconf>", false},
	} {
		if Same([]byte(file), []byte(test.other)) != test.same || Same([]byte(test.other), []byte(file)) != test.same {
			t.Errorf("%s: same is %v", name, !test.same)
		}
	}
	if !Same([]byte("<?xml version='1.0' encoding='ISO-8859-1'?><a x='\xe9'/>"), []byte("<a x='é'/>")) {
		t.Error("the encoding counts")
	}
	if Same([]byte("<a>"), []byte("<a>")) {
		t.Error("what is damaged is the same as something")
	}
}
