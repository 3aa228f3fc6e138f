//! Messages whose every byte can be checked, at both ends.
//!
//! A request is empty, or `number u64 | reply length u32 | own length u32 | pattern`; its reply is `number u64 | pattern`, cut to the
//! length asked for. A message that is torn, mixed up or of another request does not check out.

/// Bytes of a request before its pattern.
pub(crate) const HEAD: usize = 16;

fn pattern(number: u64, at: usize) -> u8 {
    let x = (number ^ (at as u64 >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x >> (8 * (at & 7))) as u8
}

/// Request `number` of `length` bytes (0, or at least [`HEAD`]), to be answered with `reply` bytes.
pub(crate) fn request(number: u64, length: usize, reply: usize) -> Vec<u8> {
    if length == 0 {
        return Vec::new();
    }
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&(reply as u32).to_le_bytes());
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.extend((HEAD..length).map(|at| pattern(number, at)));
    bytes
}

/// The reply to a request, or what is wrong with the request.
pub(crate) fn answer(request: &[u8]) -> Result<Vec<u8>, String> {
    if request.is_empty() {
        return Ok(Vec::new());
    }
    let head: [u8; HEAD] = request
        .get(..HEAD)
        .and_then(|h| h.try_into().ok())
        .ok_or("no head")?;
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) as usize;
    let number = u64::from_le_bytes(head[..8].try_into().unwrap());
    let (reply, length) = (word(8), word(12));
    if length != request.len() {
        return Err(format!("length {length} in {} bytes", request.len()));
    }
    match (HEAD..length).find(|&at| request[at] != pattern(number, at)) {
        Some(at) => Err(format!("byte {at} of request {number} is wrong")),
        None => Ok(expected(number, reply)),
    }
}

/// What request `number` is answered with.
pub(crate) fn expected(number: u64, reply: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((8..reply).map(|at| pattern(!number, at)));
    bytes.truncate(reply);
    bytes
}
