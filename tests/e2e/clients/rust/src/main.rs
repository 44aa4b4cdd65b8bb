fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("which URL?")?;
    let answer = reqwest::blocking::get(url)?.error_for_status()?;
    println!("{}", answer.text()?);
    Ok(())
}
