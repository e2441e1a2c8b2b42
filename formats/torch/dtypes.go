package torch

import "github.com/seed18967229/nibble/tensor"

// dtype is a row of the table of torch's dtypes.
type dtype struct {
	// name is torch's, without "torch.". storage is the class that a pickle
	// names for storages of the dtype; the newer dtypes have UntypedStorage,
	// counted in bytes, and name the dtype at the tensor.
	name, storage string

	// size is of an element in bytes; swap is of what a change of the byte
	// order turns around.
	size, swap int64

	// as is Invalid for what safetensors cannot hold either.
	as tensor.DType
}

// dtypes is after torch/storage.py, _dtype_to_storage_type_map and _new_dtypes.
var dtypes = []*dtype{
	untyped,
	{"float64", "DoubleStorage", 8, 8, tensor.F64},
	{"float32", "FloatStorage", 4, 4, tensor.F32},
	{"float16", "HalfStorage", 2, 2, tensor.F16},
	{"bfloat16", "BFloat16Storage", 2, 2, tensor.BF16},
	{"int64", "LongStorage", 8, 8, tensor.I64},
	{"int32", "IntStorage", 4, 4, tensor.I32},
	{"int16", "ShortStorage", 2, 2, tensor.I16},
	{"int8", "CharStorage", 1, 1, tensor.I8},
	{"bool", "BoolStorage", 1, 1, tensor.Bool},
	{"complex64", "ComplexFloatStorage", 8, 4, tensor.C64},
	{"complex128", "ComplexDoubleStorage", 16, 8, tensor.Invalid},
	{"qint8", "QInt8Storage", 1, 1, tensor.Invalid},
	{"quint8", "QUInt8Storage", 1, 1, tensor.Invalid},
	{"qint32", "QInt32Storage", 4, 4, tensor.Invalid},
	{"quint4x2", "QUInt4x2Storage", 1, 1, tensor.Invalid},
	{"quint2x4", "QUInt2x4Storage", 1, 1, tensor.Invalid},

	{"uint16", "", 2, 2, tensor.U16},
	{"uint32", "", 4, 4, tensor.U32},
	{"uint64", "", 8, 8, tensor.U64},
	{"float8_e5m2", "", 1, 1, tensor.F8_E5M2},
	{"float8_e4m3fn", "", 1, 1, tensor.F8_E4M3},
	{"float8_e5m2fnuz", "", 1, 1, tensor.F8_E5M2FNUZ},
	{"float8_e4m3fnuz", "", 1, 1, tensor.F8_E4M3FNUZ},
	{"float8_e8m0fnu", "", 1, 1, tensor.F8_E8M0},
	{"float4_e2m1fn_x2", "", 1, 1, tensor.F4},
	{"complex32", "", 4, 2, tensor.Invalid},
	{"bcomplex32", "", 4, 2, tensor.Invalid},
	{"bits8", "", 1, 1, tensor.Invalid},
	{"bits16", "", 2, 2, tensor.Invalid},
	{"bits1x8", "", 1, 1, tensor.Invalid},
	{"bits2x4", "", 1, 1, tensor.Invalid},
	{"bits4x2", "", 1, 1, tensor.Invalid},
}

// untyped is what an UntypedStorage counts in.
var untyped = &dtype{"uint8", "ByteStorage", 1, 1, tensor.U8}
