//! The type of a component's function as one line of text, to compare it and to show it.

use wasmparser::component_types::{ComponentDefinedType, ComponentFuncTypeId, ComponentValType};
use wasmparser::types::Types;

/// What `run` must look like: `guest-sdk/wit`, with every name resolved.
pub(super) const RUN: &str = "func(record{id: string, queue: string, job-type: string, node: string, attempt: u32, \
    max-attempts: u32, deadline-ms: u64, enqueued-at-ms: u64, content-type: string, payload: list<u8>, \
    metadata: list<tuple<string, string>>}) -> result<list<u8>, variant{retry(record{after-ms: option<u64>, \
    reason: string}), reject(string), failed(string)}>";

/// Types nest no deeper in a text; a file may make them as deep as it likes.
const DEPTH_MAX: u32 = 12;

/// Writes a function's type. Names of parameters are left out, as they do not matter for a call.
pub(super) fn write(types: &Types, id: ComponentFuncTypeId) -> String {
    let function = &types[id];
    let params: Vec<String> = function.params.iter().map(|(_, ty)| value(types, *ty, 0)).collect();
    let result = function.result.map(|ty| format!(" -> {}", value(types, ty, 0))).unwrap_or_default();
    let is_async = if function.async_ { "async " } else { "" };
    let text = format!("{is_async}func({}){result}", params.join(", "));
    // Long enough for what is expected, and for a message.
    text.chars().take(2 * RUN.len()).collect()
}

fn value(types: &Types, ty: ComponentValType, depth: u32) -> String {
    let id = match ty {
        ComponentValType::Primitive(primitive) => return primitive.to_string(),
        ComponentValType::Type(_) if depth >= DEPTH_MAX => return "…".to_owned(),
        ComponentValType::Type(id) => id,
    };
    let inner = |ty: ComponentValType| value(types, ty, depth + 1);
    let optional = |ty: Option<ComponentValType>| ty.map_or_else(|| "_".to_owned(), inner);
    match &types[id] {
        ComponentDefinedType::Primitive(primitive) => primitive.to_string(),
        ComponentDefinedType::Record(record) => {
            let fields = record.fields.iter().map(|(name, ty)| format!("{name}: {}", inner(*ty)));
            format!("record{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        ComponentDefinedType::Variant(variant) => {
            let cases = variant.cases.iter().map(|(name, case)| match case.ty {
                Some(ty) => format!("{name}({})", inner(ty)),
                None => name.to_string(),
            });
            format!("variant{{{}}}", cases.collect::<Vec<_>>().join(", "))
        }
        ComponentDefinedType::List { element, .. } => format!("list<{}>", inner(*element)),
        ComponentDefinedType::Map { key, value, .. } => format!("map<{}, {}>", inner(*key), inner(*value)),
        ComponentDefinedType::FixedLengthList { element, length, .. } => format!("list<{}, {length}>", inner(*element)),
        ComponentDefinedType::Tuple(tuple) => {
            format!("tuple<{}>", tuple.types.iter().map(|ty| inner(*ty)).collect::<Vec<_>>().join(", "))
        }
        ComponentDefinedType::Flags(names) => format!("flags{{{}}}", names.len()),
        ComponentDefinedType::Enum(names) => format!("enum{{{}}}", names.len()),
        ComponentDefinedType::Option { ty, .. } => format!("option<{}>", inner(*ty)),
        ComponentDefinedType::Result { ok, err, .. } => format!("result<{}, {}>", optional(*ok), optional(*err)),
        ComponentDefinedType::Own(_) => "own<resource>".to_owned(),
        ComponentDefinedType::Borrow(_) => "borrow<resource>".to_owned(),
        ComponentDefinedType::Future { ty, .. } => format!("future<{}>", optional(*ty)),
        ComponentDefinedType::Stream { ty, .. } => format!("stream<{}>", optional(*ty)),
    }
}
