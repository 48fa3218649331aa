package imsxml

// Elements returns the attributes of each element of a name, wherever it stands, in the order of the file. Its errors are those of Parse.
func Elements(data []byte, name string) (all []map[string]string, err error) {
	_, err = parse(data, func(s *scanner, piece string) {
		tag := scanner{text: piece}
		if !tag.take("<") || tag.name() != name {
			return
		}
		attributes := map[string]string{}
		for _, a := range s.attributes {
			attributes[a.name] = a.value
		}
		all = append(all, attributes)
	})
	return all, err
}
