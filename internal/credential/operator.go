package credential

import "errors"

// NeedsOperator marks an error that waiting does not mend. Who logs it asks for its method NeedsOperator, or calls
// [IsForOperator].
func NeedsOperator(err error) error { return needsOperator{err} }

type needsOperator struct{ error }

func (n needsOperator) Unwrap() error { return n.error }

// NeedsOperator is all there is to it.
func (needsOperator) NeedsOperator() {}

// IsForOperator reports whether err, or one that it wraps, was marked by [NeedsOperator].
func IsForOperator(err error) bool {
	_, ok := errors.AsType[needsOperator](err)
	return ok
}
